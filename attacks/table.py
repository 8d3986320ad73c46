"""The table of attacks: each row joins a signal with a test, and says what it does, what it needs and whose it is."""

from functools import partial

from attacks import decide, learned, lira, meta, metadata, properties, rmia, trajectories, whitebox
from attacks.active import ASCENT_RECOVERY, CANARY_GRADIENT, SINGLED_OUT_COSINE
from attacks.aggregates import AGGREGATE_COSINE, DISAGGREGATED_COSINE, ROUND_DIFFERENCE, SMALLEST_SUM
from attacks.batches import BATCHES, BATCHES_IN_MODELS
from attacks.canaries import CANARY_PRODUCT, CANARY_STEEPEST, CANARY_UPDATE
from attacks.collusion import COLLUSION_COSINE
from attacks.composition import COMPOSITION, LLG, LLG_PLUS
from attacks.distinguish import ONE_RECORD, TWO_UPDATES
from attacks.fedmia import FEDMIA_COSINE, FEDMIA_LOSS
from attacks.final import (
    CONFIDENCE,
    CORRECT,
    ENTROPY,
    LOSS,
    MARGIN,
    MODIFIED_ENTROPY,
    PROBABILITIES,
    SOFTENED,
    UNTEMPERED,
)
from attacks.labels import LABEL_COUNTS, POOLED_COUNTS
from attacks.noise import NOISE_ROBUSTNESS
from attacks.participation import ANSWERED, SAMPLE_LOSS, SAMPLE_MARGIN
from attacks.prolin import MARKS_MOVED, PROPERTY_OF_CLIENTS, PROPERTY_OF_SUMS
from attacks.rounds import LOSS_TRAJECTORY
from attacks.samples import NEURONS, POISONED_BELIEF, SAMPLE_ACCURACIES, SAMPLE_ANSWERS, SAMPLE_LOSSES
from attacks.source import SOURCE_COSINE, SOURCE_LABELS, SOURCE_LOSS
from attacks.updates import GRADIENT_NORM, MOVEMENT_COSINE, UPDATE_COSINE, UPDATE_COSINE_ONCE, UPDATE_DIFFERENCE
from attacks.zero_patterns import STILL_FEATURES, STILL_IN_ALL
from fedsim.attack import Attack, Paper

YEOM = Paper(
    "Yeom, Giacomelli, Fredrikson, Jha: Privacy risk in machine learning: analyzing the connection to overfitting. "
    "IEEE CSF 2018",
    "https://arxiv.org/abs/1709.01604",
)
SHOKRI = Paper(
    "Shokri, Stronati, Song, Shmatikov: Membership inference attacks against machine learning models. IEEE S&P 2017",
    "https://arxiv.org/abs/1610.05820",
)
SALEM = Paper("Salem, Zhang, Humbert, Berrang, Fritz, Backes: ML-Leaks. NDSS 2019", "https://arxiv.org/abs/1806.01246")
SONG = Paper(
    "Song, Mittal: Systematic evaluation of privacy risks of machine learning models. USENIX Security 2021",
    "https://arxiv.org/abs/2003.10595",
)
WATSON = Paper(
    "Watson, Guo, Cormode, Sablayrolles: On the importance of difficulty calibration in membership inference attacks. "
    "ICLR 2022",
    "https://arxiv.org/abs/2111.08440",
)
CARLINI = Paper(
    "Carlini, Chien, Nasr, Song, Terzis, Tramer: Membership inference attacks from first principles. IEEE S&P 2022",
    "https://arxiv.org/abs/2112.03570",
)
ZARIFZADEH = Paper(
    "Zarifzadeh, Liu, Shokri: Low-cost high-power membership inference attacks. ICML 2024",
    "https://arxiv.org/abs/2312.03262",
)
YE = Paper(
    "Ye, Maddi, Murakonda, Bindschaedler, Shokri: Enhanced membership inference attacks against machine learning "
    "models. CCS 2022",
    "https://arxiv.org/abs/2111.09679",
)
BERTRAN = Paper(
    "Bertran, Tang, Kearns, Morgenstern, Roth, Wu: Scalable membership inference attacks via quantile regression. "
    "NeurIPS 2023",
    "https://arxiv.org/abs/2307.03694",
)
CHOQUETTE = Paper(
    "Choquette-Choo, Tramer, Carlini, Papernot: Label-only membership inference attacks. ICML 2021",
    "https://arxiv.org/abs/2007.14321",
)
ZHU = Paper(
    "Zhu, Li, Gu et al.: FedMIA: an effective membership inference attack exploiting all-for-one in federated "
    "learning. CVPR 2025",
    "https://arxiv.org/abs/2402.06289",
)
LI = Paper(
    "Li, Li, Ribeiro: Effective passive membership inference attacks in federated learning against overparameterized "
    "models. ICLR 2023",
    "https://openreview.net/forum?id=QsCSLPP55Ku",
)
NASR_2023 = Paper(
    "Nasr, Hayes, Steinke, Balle, Tramer, Jagielski, Carlini, Terzis: Tight auditing of differentially private machine "
    "learning. USENIX Security 2023",
    "https://arxiv.org/abs/2302.07956",
)
ANDREW = Paper(
    "Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar: One-shot empirical privacy estimation for FL. ICLR 2024",
    "https://arxiv.org/abs/2302.03098",
)
SURI = Paper(
    "Suri, Evans: Formalizing and estimating distribution inference risks. PETS 2022",
    "https://arxiv.org/abs/2109.06024",
)
WAINAKH = Paper(
    "Wainakh, Ventola, Mussig et al.: User-level label leakage from gradients in federated learning. PETS 2022",
    "https://arxiv.org/abs/2105.09369",
)
KERKOUCHE = Paper(
    "Kerkouche, Acs, Fritz: Client-specific property inference against secure aggregation in federated learning. "
    "WPES 2023",
    "https://arxiv.org/abs/2303.03908",
)
WANG = Paper(
    "Wang L., Xu, Wang X., Zhu: Eavesdrop the composition proportion of training labels in federated learning. 2019",
    "https://arxiv.org/abs/1910.06044",
)
HU = Paper(
    "Hu, Salcic, Sun, Dobbie, Zhang: Source inference attacks in federated learning. IEEE ICDM 2021",
    "https://arxiv.org/abs/2109.05659",
)
SUBJECT = Paper(
    "Suri, Kanani, Marathe, Peterson: Subject membership inference attacks in federated learning. arXiv 2022",
    "https://arxiv.org/abs/2206.03317",
)
KAIROUZ = Paper(
    "Kairouz, McMahan et al.: Advances and open problems in federated learning. Foundations and Trends in Machine "
    "Learning 2021",
    "https://arxiv.org/abs/1912.04977",
)
GU = Paper(
    "Gu, Bai, Xu: CS-MIA: membership inference attack based on prediction confidence series in federated learning. "
    "Journal of Information Security and Applications 2022",
    "https://doi.org/10.1016/j.jisa.2022.103201",
)
ZARI = Paper(
    "Zari, Xu, Neglia: Efficient passive membership inference attack in federated learning. arXiv 2021",
    "https://arxiv.org/abs/2111.00430",
)
NASR_2019 = Paper(
    "Nasr, Shokri, Houmansadr: Comprehensive privacy analysis of deep learning: passive and active white-box inference "
    "attacks against centralized and federated learning. IEEE S&P 2019",
    "https://arxiv.org/abs/1812.00910",
)
MELIS = Paper(
    "Melis, Song, De Cristofaro, Shmatikov: Exploiting unintended feature leakage in collaborative learning. "
    "IEEE S&P 2019",
    "https://arxiv.org/abs/1805.04049",
)
ELKORDY = Paper(
    "Elkordy, Zhang, Ezzeldin, Psounis, Avestimehr: How much privacy does federated learning with secure aggregation "
    "guarantee? PoPETs 2023",
    "https://arxiv.org/abs/2208.02304",
)
SO = Paper(
    "So, Ali, Guler, Jiao, Avestimehr: Securing secure aggregation: mitigating multi-round privacy leakage in "
    "federated learning. AAAI 2023",
    "https://arxiv.org/abs/2106.03328",
)
NGO = Paper(
    "Ngo, Ostman, Durisi, Graell i Amat: Secure aggregation is not private against membership inference attacks. "
    "ECML PKDD 2024",
    "https://arxiv.org/abs/2403.17775",
)
BONAWITZ = Paper(
    "Bonawitz, Ivanov, Kreuter, Marcedone, McMahan et al.: Practical secure aggregation for privacy-preserving machine "
    "learning. CCS 2017",
    "https://doi.org/10.1145/3133956.3133982",
)
LAM = Paper(
    "Lam, Wei, Brooks, Reddi, Mitzenmacher: Gradient disaggregation: breaking privacy in federated learning by "
    "reconstructing the user participant matrix. ICML 2021",
    "https://arxiv.org/abs/2106.06089",
)
PASQUINI = Paper(
    "Pasquini, Francati, Ateniese: Eluding secure aggregation in federated learning via model inconsistency. CCS 2022",
    "https://arxiv.org/abs/2111.07380",
)
CHAUDHARI = Paper(
    "Chaudhari, Abascal, Oprea, Jagielski, Tramer, Ullman: SNAP: efficient extraction of private properties with "
    "poisoning. IEEE S&P 2023",
    "https://arxiv.org/abs/2208.12348",
)

NOTHING = "The record and its label; nothing else."
REFERENCES = "Reference federations: worlds the attacker ran with the same recipe, with known membership."
PUBLIC_RECORDS = "Public records that are in no training set."
OWNER = "Which client is alleged to hold the record."
OWNER_AND_REFERENCES = (
    "Which client is alleged to hold the record, and reference federations with known membership of which every update "
    "is kept."
)
BOTH = "Reference federations with known membership, and public records that are in no training set."

DISSECTING = Paper(
    "Suri, Lu, Chen, Evans: Dissecting distribution inference. IEEE SaTML 2023", "https://arxiv.org/abs/2212.07591"
)
ZHANG = Paper(
    "Zhang, Tople, Ohrimenko: Leakage of dataset properties in multi-party machine learning. USENIX Security 2021",
    "https://arxiv.org/abs/2006.07267",
)
GANJU = Paper(
    "Ganju, Wang, Yang, Gunter, Borisov: Property inference attacks on fully connected neural networks using "
    "permutation invariant representations. ACM CCS 2018",
    "https://doi.org/10.1145/3243734.3243834",
)
SAMPLES_AND_OWN = (
    "A public sample of each of the two populations, and reference federations with known property, all with the same "
    "recipe."
)
OWN_MODELS = "The parameters of the model, and reference federations with known property, all with the same recipe."

ATTACKS: dict[str, Attack] = {
    "gap": Attack(
        name="gap",
        title="Gap",
        game="record",
        signal=CORRECT,
        test=decide.higher,
        summary="Says that a record was in training if the model labels it rightly. Its advantage is exactly the "
        "gap between training and test accuracy, and no hiding of confidences stops it.",
        knowledge=NOTHING,
        paper=YEOM,
    ),
    "loss": Attack(
        name="loss",
        title="Loss threshold",
        game="record",
        signal=LOSS,
        test=decide.lower,
        summary="Says that the records on which the model errs least were in training. It finds easy records as "
        "well as members, so it is the floor that every other attack must beat.",
        knowledge=NOTHING,
        paper=YEOM,
    ),
    "confidence": Attack(
        name="confidence",
        title="Confidence",
        game="record",
        signal=CONFIDENCE,
        test=decide.higher,
        summary="Ranks records by the probability that the model gives to their own label. The order is that of the "
        "loss; thresholds differ.",
        knowledge=NOTHING,
        paper=SONG,
    ),
    "entropy": Attack(
        name="entropy",
        title="Entropy",
        game="record",
        signal=ENTROPY,
        test=decide.lower,
        summary="Says that records with a decided answer were in training, whatever that answer is. It needs no "
        "label, and is fooled by answers that are sure and wrong.",
        knowledge="The record alone; not even its label.",
        paper=SONG,
    ),
    "modified_entropy": Attack(
        name="modified_entropy",
        title="Modified entropy",
        game="record",
        signal=MODIFIED_ENTROPY,
        test=decide.lower,
        summary="An entropy that knows the label: low for a sure and right answer, high for a sure and wrong one. "
        "It mends the plain entropy attack at no cost.",
        knowledge=NOTHING,
        paper=SONG,
    ),
    "modified_entropy_per_class": Attack(
        name="modified_entropy_per_class",
        title="Modified entropy, threshold per class",
        game="record",
        signal=MODIFIED_ENTROPY,
        test=decide.lower_per_class,
        summary="Modified entropy, measured from the threshold that parts members from others best in the same "
        "class. The thresholds are learned on reference worlds, so that hard classes are not mistaken for "
        "non-members.",
        knowledge=REFERENCES,
        paper=SONG,
        min_references=1,
    ),
    "shokri": Attack(
        name="shokri",
        title="Shadow classifier per class",
        game="record",
        signal=PROBABILITIES,
        test=learned.shadow_classifier_per_class,
        summary="Trains a small network for each class to tell the answers that models give to their own training "
        "records from the rest. It learns from up to 8 reference worlds, drawn at random.",
        knowledge=REFERENCES,
        paper=SHOKRI,
        min_references=1,
    ),
    "salem_1": Attack(
        name="salem_1",
        title="One shadow model, top three",
        game="record",
        signal=PROBABILITIES,
        test=learned.shadow_classifier_top_three,
        summary="Trains one small network, for all classes, on the three largest probabilities. It learns from a "
        "single reference world, which makes it the cheapest learned attack.",
        knowledge="One reference federation with known membership.",
        paper=SALEM,
        min_references=1,
    ),
    "salem_3": Attack(
        name="salem_3",
        title="Largest probability",
        game="record",
        signal=PROBABILITIES,
        test=decide.largest,
        summary="Ranks records by the largest probability in the answer, whichever class it belongs to. It needs no "
        "label and no model of its own.",
        knowledge="The record alone; not even its label.",
        paper=SALEM,
    ),
    "watson": Attack(
        name="watson",
        title="Difficulty calibration",
        game="record",
        signal=MARGIN,
        test=decide.above_out_mean,
        summary="Compares the margin with that of models that never saw the record, so that easy records no longer "
        "look like members. One reference already helps.",
        knowledge=REFERENCES,
        paper=WATSON,
        min_references=1,
    ),
    "lira": Attack(
        name="lira",
        title="Likelihood ratio (LiRA)",
        game="record",
        signal=MARGIN,
        test=partial(lira.online, spread="auto"),
        summary="Asks which explains the model's answer better: models trained with this record or models trained "
        "without it. Each record has its own two bell curves; below 64 references all records share their "
        "width.",
        knowledge=REFERENCES,
        paper=CARLINI,
        min_references=2,
    ),
    "lira_per_example": Attack(
        name="lira_per_example",
        title="Likelihood ratio, width per record",
        game="record",
        signal=MARGIN,
        test=partial(lira.online, spread="per_example"),
        summary="The likelihood-ratio attack with a width of its own for each bell curve, however few the "
        "references. Noisier than the shared width below about 64 of them, sharper above.",
        knowledge=REFERENCES,
        paper=CARLINI,
        min_references=2,
    ),
    "lira_offline": Attack(
        name="lira_offline",
        title="Likelihood ratio, offline",
        game="record",
        signal=MARGIN,
        test=partial(lira.offline, spread="auto"),
        summary="Asks how unusual the answer would be from a model that never saw the record. It needs only "
        "references without the record, which can be trained before anybody asks.",
        knowledge=REFERENCES,
        paper=CARLINI,
        min_references=2,
    ),
    "rmia": Attack(
        name="rmia",
        title="Relative membership (RMIA)",
        game="record",
        signal=SOFTENED,
        test=rmia.online,
        summary="Asks against how many public records this record wins: by how much more the model likes it than "
        "reference models do. Strong with very few references.",
        knowledge=BOTH,
        paper=ZARIFZADEH,
        min_references=1,
    ),
    "rmia_offline": Attack(
        name="rmia_offline",
        title="Relative membership, offline",
        game="record",
        signal=SOFTENED,
        test=rmia.offline,
        summary="The relative attack with references that never saw the record; what the others would have said is "
        "extrapolated. The one constant of the extrapolation is tuned on the references.",
        knowledge=BOTH,
        paper=ZARIFZADEH,
        min_references=1,
    ),
    "attack_p": Attack(
        name="attack_p",
        title="Population quantile",
        game="record",
        signal=LOSS,
        test=decide.population_quantile,
        summary="Asks what share of public records the model fits worse than this one. It is the loss attack with a "
        "threshold that keeps its false alarms in check.",
        knowledge=PUBLIC_RECORDS,
        paper=YE,
    ),
    "attack_r": Attack(
        name="attack_r",
        title="Reference quantile",
        game="record",
        signal=LOSS,
        test=decide.reference_quantile,
        summary="Asks what share of models that never saw the record fit it worse than this one. It needs many "
        "references to tell strong evidence from very strong evidence.",
        knowledge=REFERENCES,
        paper=YE,
        min_references=1,
    ),
    "quantile": Attack(
        name="quantile",
        title="Quantile regression",
        game="record",
        signal=MARGIN,
        test=learned.quantile_regression,
        summary="Learns on public records what margin is normal for a record like this, and how far it varies. A "
        "margin far above the normal one speaks for membership; no reference federation is needed.",
        knowledge="At least 100 public records that are in no training set.",
        paper=BERTRAN,
    ),
    "label_only": Attack(
        name="label_only",
        title="Label only, by noise",
        game="record",
        signal=NOISE_ROBUSTNESS,
        test=decide.higher,
        summary="Disturbs the record again and again and counts how often the model still gives its label. Training "
        "records tend to lie further from the border, and hiding the confidences does not help.",
        knowledge="The record and its label, and 101 queries, or as many as the release answers.",
        paper=CHOQUETTE,
    ),
    "loss_trajectory": Attack(
        name="loss_trajectory",
        title="Loss over rounds",
        game="record",
        signal=LOSS_TRAJECTORY,
        test=decide.lower_over_rounds,
        summary="Averages the loss of the record over all the global models that the attacker was sent. A "
        "participant sees one model a round, so it can watch a record being learned.",
        knowledge=NOTHING,
        paper=ZHU,
    ),
    "loss_trajectory_calibrated": Attack(
        name="loss_trajectory_calibrated",
        title="Loss over rounds, calibrated",
        game="record",
        signal=LOSS_TRAJECTORY,
        test=decide.below_out_mean_over_rounds,
        summary="Compares the loss in each round with that of reference federations that never saw the record. This "
        "takes away how hard the record is, round by round.",
        knowledge=REFERENCES,
        paper=WATSON,
        min_references=1,
    ),
    "update_cosine": Attack(
        name="update_cosine",
        title="Update cosine",
        game="record",
        signal=UPDATE_COSINE,
        test=decide.higher,
        summary="Compares the direction in which a client moved the model with the direction this record alone "
        "would have asked for. Training on the record leaves a trace of it in the update.",
        knowledge="Which client is alleged to hold the record.",
        paper=LI,
    ),
    "update_difference": Attack(
        name="update_difference",
        title="Update difference",
        game="record",
        signal=UPDATE_DIFFERENCE,
        test=decide.higher,
        summary="Asks how much closer a client's update is to a step along this record's gradient than to no step at "
        "all. The length of the step is fitted to all the records asked about together, without their labels of "
        "membership.",
        knowledge=OWNER,
        paper=LI,
    ),
    "gradient_norm": Attack(
        name="gradient_norm",
        title="Gradient norm",
        game="record",
        signal=GRADIENT_NORM,
        test=decide.lower,
        summary="Says that records which ask little of the global models of all rounds were in training. It is the "
        "loss attack by another name, and a floor for attacks on updates.",
        knowledge=NOTHING,
        paper=LI,
    ),
    "update_lira": Attack(
        name="update_lira",
        title="Likelihood ratio of the update cosine",
        game="record",
        signal=UPDATE_COSINE,
        test=partial(lira.online, spread="auto"),
        summary="Asks which explains the cosine of the update with the record's gradient better: federations in which "
        "the owner trained on the record or federations in which it did not. Each record has its own two bell "
        "curves, so that what is normal for it no longer counts.",
        knowledge=OWNER_AND_REFERENCES,
        paper=CARLINI,
        min_references=2,
    ),
    "update_lira_offline": Attack(
        name="update_lira_offline",
        title="Likelihood ratio of the update cosine, offline",
        game="record",
        signal=UPDATE_COSINE,
        test=partial(lira.offline, spread="auto"),
        summary="Asks how unusual the cosine of the update with the record's gradient would be in a federation without "
        "the record. It needs only references without it, which can be run before anybody asks.",
        knowledge=OWNER_AND_REFERENCES,
        paper=CARLINI,
        min_references=2,
    ),
    "update_watson": Attack(
        name="update_watson",
        title="Update cosine, calibrated",
        game="record",
        signal=UPDATE_COSINE,
        test=decide.above_out_mean,
        summary="Compares the cosine of the update with the record's gradient with that in federations without the "
        "record. What clients do to such records anyway is taken away; one reference already helps.",
        knowledge=OWNER_AND_REFERENCES,
        paper=WATSON,
        min_references=1,
    ),
    "fedmia_loss": Attack(
        name="fedmia_loss",
        title="All for one, by loss (FedMIA-I)",
        game="record",
        signal=FEDMIA_LOSS,
        test=decide.higher,
        summary="Asks in each round whether the model that the alleged owner sends back fits the record better than "
        "those of all the other clients do. They do not hold the record, so they are references for free.",
        knowledge=OWNER,
        paper=ZHU,
    ),
    "fedmia_cosine": Attack(
        name="fedmia_cosine",
        title="All for one, by cosine (FedMIA-II)",
        game="record",
        signal=FEDMIA_COSINE,
        test=decide.higher,
        summary="Asks in each round whether the alleged owner's update follows the record's gradient more closely "
        "than the updates of all the other clients do. They do not hold the record, so they are references for "
        "free.",
        knowledge=OWNER,
        paper=ZHU,
    ),
    "movement_cosine": Attack(
        name="movement_cosine",
        title="Cosine with the round's movement",
        game="record",
        signal=MOVEMENT_COSINE,
        test=decide.higher,
        summary="Compares the way the global model moved in a round with the direction this record alone would have "
        "asked for. The trace is diluted by the whole cohort, but secure aggregation does not hide it.",
        knowledge=NOTHING,
        paper=LI,
    ),
    "confidence_trajectory": Attack(
        name="confidence_trajectory",
        title="Confidences over rounds (CS-MIA)",
        game="record",
        signal=LOSS_TRAJECTORY,
        test=trajectories.learned_series,
        summary="Learns from reference federations how the confidence in a record's label runs from round to round "
        "when the record is trained on and when it is not. The whole course counts, where a mean over rounds would "
        "weigh all of them alike.",
        knowledge=REFERENCES,
        paper=GU,
        min_references=1,
    ),
    "owner_loss_series": Attack(
        name="owner_loss_series",
        title="Loss of the owner's models",
        game="record",
        signal=trajectories.OWNER_LOSSES,
        test=trajectories.mean_gain,
        summary="Averages the loss of the record under the models that the alleged owner sent back. They come straight "
        "from training, before the average with other clients blurs what they have learned.",
        knowledge=OWNER,
        paper=ZHU,
    ),
    "owner_trajectory": Attack(
        name="owner_trajectory",
        title="Confidences of the owner's models over rounds",
        game="record",
        signal=trajectories.OWNER_LOSSES,
        test=trajectories.learned_series,
        summary="Learns from reference federations how the confidence in a record's label runs through the models that "
        "its owner sends back. It is a white-box attack at the price of one answer a round.",
        knowledge=OWNER_AND_REFERENCES,
        paper=ZARI,
        min_references=1,
    ),
    "owner_rmia": Attack(
        name="owner_rmia",
        title="Relative membership in the owner's models",
        game="record",
        signal=trajectories.OWNER_SOFTENED,
        test=trajectories.relative,
        summary="Asks against how many public records this record wins under the models that its alleged owner sent "
        "back: by how much more they like it than the same owner's models in reference federations do. Each public "
        "record is judged under the models of one of the owners, in turn.",
        knowledge="Which client is alleged to hold the record, public records that are in no training set, and "
        "reference federations with known membership of which the clients' models are kept.",
        paper=ZARIFZADEH,
        min_references=1,
    ),
    "nasr_participant": Attack(
        name="nasr_participant",
        title="White box, global models (Nasr et al.)",
        game="record",
        signal=whitebox.OF_BROADCASTS,
        test=whitebox.encoder,
        summary="Shows a small network what the global models of up to five rounds do with the record: loss, answers, "
        "gradient of each layer, what the last layer sees. It learns from up to 8 reference federations, of which "
        "it knows all members.",
        knowledge=REFERENCES,
        paper=NASR_2019,
        min_references=1,
    ),
    "nasr_server": Attack(
        name="nasr_server",
        title="White box, the owner's models too (Nasr et al.)",
        game="record",
        signal=whitebox.OF_BROADCASTS_AND_REPLIES,
        test=whitebox.encoder,
        summary="The white-box attack that also looks at the models that the alleged owner sent back in those rounds. "
        "It learns from up to 8 reference federations, of which it knows all members.",
        knowledge=OWNER_AND_REFERENCES,
        paper=NASR_2019,
        min_references=1,
    ),
    "zero_pattern": Attack(
        name="zero_pattern",
        title="Weights that never moved",
        game="record",
        signal=STILL_FEATURES,
        test=decide.lower,
        summary="Counts the features of a record whose weights in the first layer no update of the alleged owner ever "
        "moved. Training on the record would have moved them, so one such feature rules it out; where records are "
        "sparse, this needs no model of anything.",
        knowledge="The record, and which client is alleged to hold it.",
        paper=MELIS,
    ),
    "zero_pattern_rounds": Attack(
        name="zero_pattern_rounds",
        title="Weights of the global model that never moved",
        game="record",
        signal=STILL_IN_ALL,
        test=decide.lower,
        summary="Counts the features of a record whose weights in the first layer of the global model never moved. "
        "Such a feature rules out that any client trained on the record, and secure aggregation does not hide it.",
        knowledge="The record alone; not even its label.",
        paper=MELIS,
    ),
    "metadata_only": Attack(
        name="metadata_only",
        title="What travels in clear",
        game="record",
        signal=metadata.METADATA,
        test=metadata.learned_from_metadata,
        summary="Looks at no model at all, only at what the alleged owner says and does in clear: its number of "
        "examples, its training loss, when it takes part and when it drops out. It learns from reference federations "
        "how these change with the number of records that are in, which says something where a client has few of them.",
        knowledge="Which client is alleged to hold the record, and what clients say in clear in reference federations "
        "with known membership.",
        paper=KAIROUZ,
        min_references=1,
    ),
    "lira_untempered": Attack(
        name="lira_untempered",
        title="Likelihood ratio, temperature undone",
        game="record",
        signal=UNTEMPERED,
        test=partial(lira.online, spread="auto"),
        summary="Undoes a release that softens its answers by a temperature, by raising them to that power, and then "
        "asks what the likelihood ratio asks. Softening hides nothing from somebody who knows the temperature.",
        knowledge=REFERENCES,
        paper=CARLINI,
        min_references=2,
    ),
    "update_cosine_once": Attack(
        name="update_cosine_once",
        title="Update cosine, one round",
        game="record",
        signal=UPDATE_COSINE_ONCE,
        test=decide.higher,
        summary="Compares the first update that a client sends with the direction this record alone would have asked "
        "for. Beside the update cosine over all rounds it shows what watching for longer is worth.",
        knowledge=OWNER,
        paper=LI,
    ),
    "property_loss": Attack(
        name="property_loss",
        title="Loss on two samples",
        game="property",
        signal=SAMPLE_LOSSES,
        test=decide.lower_on_yes,
        summary="Compares how well the model fits a public sample with the property and one without it. A model "
        "fits best what it was trained on.",
        knowledge="A public sample of each of the two populations.",
        paper=SURI,
    ),
    "property_threshold": Attack(
        name="property_threshold",
        title="Accuracy threshold",
        game="property",
        signal=SAMPLE_ACCURACIES,
        test=properties.threshold_or_line,
        summary="Learns on reference federations which accuracy, above or below which threshold, gives the property "
        "away. It works even where only labels are shown.",
        knowledge="A public sample of each of the two populations, and reference federations with known property.",
        paper=SURI,
        min_references=2,
        estimates=True,
    ),
    "property_kl": Attack(
        name="property_kl",
        title="Divergence from own models",
        game="property",
        signal=SAMPLE_ANSWERS,
        test=properties.divergence_votes,
        summary="Compares the model's answers to two public samples with those of the attacker's own models of either "
        "kind. Each pair of them votes for the one that answers more alike.",
        knowledge=SAMPLES_AND_OWN,
        paper=DISSECTING,
        min_references=2,
        estimates=True,
    ),
    "property_blackbox": Attack(
        name="property_blackbox",
        title="Network on answers",
        game="property",
        signal=SAMPLE_ANSWERS,
        test=meta.black_box,
        summary="Puts a fixed list of public records to the attacker's own models and trains a small network to read "
        "the property off the answers. Then it puts the same list to the model attacked.",
        knowledge=SAMPLES_AND_OWN,
        paper=ZHANG,
        min_references=2,
        estimates=True,
    ),
    "property_flat": Attack(
        name="property_flat",
        title="Network on parameters as they stand",
        game="property",
        signal=NEURONS,
        test=meta.flattened,
        summary="Trains a small network to read the property off the parameters of the attacker's own models, in the "
        "order in which they stand. It is the first baseline: equal models with their neurons in another order look "
        "different to it.",
        knowledge=OWN_MODELS,
        paper=GANJU,
        min_references=2,
        estimates=True,
    ),
    "property_sorted": Attack(
        name="property_sorted",
        title="Network on sorted neurons",
        game="property",
        signal=NEURONS,
        test=meta.in_sorted_order,
        summary="Does the same after sorting the neurons of each hidden layer by the sum of their weights. It is the "
        "second baseline: equal models look equal, but a small change can turn the order round.",
        knowledge=OWN_MODELS,
        paper=GANJU,
        min_references=2,
        estimates=True,
    ),
    "property_whitebox": Attack(
        name="property_whitebox",
        title="Network on sets of neurons",
        game="property",
        signal=NEURONS,
        test=meta.deep_sets,
        summary="Trains a network that reads each layer of the attacker's own models as a set of neurons, in whatever "
        "order they stand. Then it reads the property off the parameters of the model attacked.",
        knowledge=OWN_MODELS,
        paper=GANJU,
        min_references=2,
        estimates=True,
    ),
    "label_unmixing": Attack(
        name="label_unmixing",
        title="Label histogram from the last bias",
        game="labels",
        signal=LABEL_COUNTS,
        test=decide.higher,
        summary="Reads from how a client moved the last layer's bias how many records of each class it holds. The "
        "sum of the client's errors stands in the update in clear; exact for an untrained model and plain "
        "SGD, an ordering otherwise.",
        knowledge="Public records, to estimate the average answer to each class.",
        paper=WAINAKH,
        estimates=True,
    ),
    "llg": Attack(
        name="llg",
        title="Labels from gradients (LLG)",
        game="labels",
        signal=LLG,
        test=decide.higher,
        summary="Adds up each class's row of the last layer's gradient: behind a ReLU the sum is negative only where "
        "the class was trained. One label after the other is placed where the sum is lowest.",
        knowledge="Nothing beyond the update and its number of examples.",
        paper=WAINAKH,
        estimates=True,
    ),
    "llg_plus": Attack(
        name="llg_plus",
        title="Labels from gradients, measured (LLG+)",
        game="labels",
        signal=LLG_PLUS,
        test=decide.higher,
        summary="Measures on public records of each class what a label adds to its row of the last layer's gradient, "
        "and what the other labels add. Then it places labels as LLG does.",
        knowledge="Public records of each class, and the learning rate.",
        paper=WAINAKH,
        estimates=True,
    ),
    "label_composition": Attack(
        name="label_composition",
        title="Composition of the last layer",
        game="labels",
        signal=COMPOSITION,
        test=decide.higher,
        summary="Takes the last layer's gradient for public records of each class, and finds the mix of them that "
        "looks most like the client's update. It needs no learning rate, as only the proportions count.",
        knowledge="Public records of each class.",
        paper=WANG,
        estimates=True,
    ),
    "pooled_unmixing": Attack(
        name="pooled_unmixing",
        title="Label histogram from a sum",
        game="labels",
        signal=POOLED_COUNTS,
        test=decide.higher,
        summary="Reads the label histogram off the last layer's bias of a sum of updates, which secure aggregation "
        "opens, just as off a single one. It is that of all clients in the sum together, and says less of each.",
        knowledge="Public records, to estimate the average answer to each class.",
        paper=WAINAKH,
        estimates=True,
    ),
    "prolin": Attack(
        name="prolin",
        title="Property of a client, solved from sums (PROLIN)",
        game="client_property",
        signal=PROPERTY_OF_CLIENTS,
        test=decide.higher,
        summary="Learns on public records a linear function that tells updates of record sets with the property from "
        "others, and solves what it says of the sums of many rounds for each client. It names a client only where the "
        "sums single it out, so who takes part must vary.",
        knowledge="Public records with and without the property, the training recipe, and who took part in each round.",
        paper=KERKOUCHE,
    ),
    "property_sum": Attack(
        name="property_sum",
        title="Property of the sums of a client",
        game="client_property",
        signal=PROPERTY_OF_SUMS,
        test=decide.higher,
        summary="Asks the same linear function, and takes the mean over the sums that a client is in. Whoever else is "
        "in them blurs it, but a single sum is enough.",
        knowledge="Public records with and without the property, the training recipe, and who took part in each round.",
        paper=KERKOUCHE,
    ),
    "zero_property": Attack(
        name="zero_property",
        title="Features that only the property has",
        game="client_property",
        signal=MARKS_MOVED,
        test=decide.higher,
        summary="Finds features that occur in public records with the property and in no others, and looks whether a "
        "client ever moved their weights in the first layer. A weight that multiplies zeros only never moves.",
        knowledge="Public records with and without the property.",
        paper=MELIS,
    ),
    "batch_property": Attack(
        name="batch_property",
        title="Property of a batch, from updates",
        game="batches",
        signal=BATCHES,
        test=decide.higher,
        summary="Trains a forest on the sizes of updates that the attacker computes itself on public batches with the "
        "property and without. It then judges the client's update of each round, or the sum that it is in.",
        knowledge="Public records with and without the property, and the training recipe.",
        paper=MELIS,
    ),
    "batch_property_models": Attack(
        name="batch_property_models",
        title="Property of a batch, from the global models",
        game="batches",
        signal=BATCHES_IN_MODELS,
        test=decide.higher,
        summary="Takes what the global model moved by from one round to the next, less what the attacker did itself. A "
        "forest that practised on public batches says whether a batch with the property was in it.",
        knowledge="Public records with and without the property, the training recipe, and that all clients take part.",
        paper=MELIS,
    ),
    "canary_product": Attack(
        name="canary_product",
        title="Canary, whole movement",
        game="canaries",
        signal=CANARY_PRODUCT,
        test=decide.higher,
        summary="Measures how far the global model moved, from the first to the last one seen, in the direction that "
        "only this canary pushes. Noise of the mechanism is all that hides it.",
        knowledge="The canaries, which the auditor made.",
        paper=NASR_2023,
    ),
    "canary_update": Attack(
        name="canary_update",
        title="Canary, its client's updates",
        game="canaries",
        signal=CANARY_UPDATE,
        test=decide.higher,
        summary="Adds up how far the updates of the one client that would hold a canary record went its way. No other "
        "client's noise or training stands between.",
        knowledge="The canaries, which the auditor made, and which client would hold each.",
        paper=NASR_2023,
    ),
    "canary_steepest": Attack(
        name="canary_steepest",
        title="Canary, steepest step",
        game="canaries",
        signal=CANARY_STEEPEST,
        test=decide.higher,
        summary="The largest cosine of any round's movement of the global model with the direction of this canary. "
        "It sees canaries that take part in few rounds.",
        knowledge="The canaries, which the auditor made, and the model of every round.",
        paper=ANDREW,
    ),
    "source_loss": Attack(
        name="source_loss",
        title="Lowest loss among the clients",
        game="source",
        signal=SOURCE_LOSS,
        test=decide.higher,
        summary="Asks in each round whether the model that the named client sent back fits the record better than that "
        "of any other client. Whoever has just trained on a record fits it best.",
        knowledge="The record and its label, and that it is in the training data of somebody.",
        paper=HU,
    ),
    "source_cosine": Attack(
        name="source_cosine",
        title="Update cosine against the other clients",
        game="source",
        signal=SOURCE_COSINE,
        test=decide.higher,
        summary="Asks in each round whether the named client's update points more where this record alone would have "
        "pulled the model than the other clients' updates do. What all clients have in common cancels out.",
        knowledge="The record and its label, and that it is in the training data of somebody.",
        paper=LI,
    ),
    "source_labels": Attack(
        name="source_labels",
        title="Label prior of the clients",
        game="source",
        signal=SOURCE_LABELS,
        test=decide.higher,
        summary="Guesses that a record is where most records with its label are, from what the updates reveal of each "
        "client's label counts. It never looks at the record itself, so it is the floor that a source attack must beat "
        "where clients hold different labels.",
        knowledge="The label of the record, and public records to estimate the average answer to each class.",
        paper=HU,
    ),
    "client_loss": Attack(
        name="client_loss",
        title="Loss on a client's records",
        game="client",
        signal=SAMPLE_LOSS,
        test=decide.lower,
        summary="Averages the model's loss over records of a client that the attacker holds. A model fits those it "
        "was trained on, and others like them.",
        knowledge="Records of the client: those it trains on, or others of its own.",
        paper=SUBJECT,
    ),
    "client_lira": Attack(
        name="client_lira",
        title="Likelihood ratio of a client",
        game="client",
        signal=SAMPLE_MARGIN,
        test=partial(lira.online, spread="auto"),
        summary="Asks which explains the mean margin of a client's records better: federations with this client or "
        "federations without it. Each client has its own two bell curves, so that one with easy records is not taken "
        "for one that was there.",
        knowledge="Records of the client, and reference federations of which the attacker knows who took part.",
        paper=CARLINI,
        min_references=2,
    ),
    "taking_part": Attack(
        name="taking_part",
        title="Who takes part",
        game="client",
        signal=ANSWERED,
        test=decide.higher,
        summary="Looks with whom the server exchanges messages in training. Neither secure aggregation nor noise hides "
        "that, and nothing has to be read.",
        knowledge="Nothing; sender and receiver of each message are enough.",
        paper=KAIROUZ,
    ),
    "aggregate_cosine": Attack(
        name="aggregate_cosine",
        title="Cosine with the sums of the owner's rounds",
        game="record",
        signal=AGGREGATE_COSINE,
        test=decide.higher,
        summary="Compares each sum of updates that the alleged owner is in with the direction this record alone would "
        "have asked for. It is what is left of the update cosine under secure aggregation, diluted by all the others "
        "in the sum.",
        knowledge=f"{OWNER} Who is in a sum, which the messages show.",
        paper=ELKORDY,
    ),
    "smallest_sum": Attack(
        name="smallest_sum",
        title="Cosine with the smallest sums",
        game="record",
        signal=SMALLEST_SUM,
        test=decide.higher,
        summary="Looks above all at the rounds in which drop-outs or sampling left few clients in the sum: a round "
        "counts by one over their number. The fewer are in it, the less hides the owner.",
        knowledge=f"{OWNER} Who is in a sum, which the messages show.",
        paper=ELKORDY,
    ),
    "round_difference": Attack(
        name="round_difference",
        title="Difference of two sums",
        game="record",
        signal=ROUND_DIFFERENCE,
        test=decide.higher,
        summary="Takes two sums in a row that differ only in the alleged owner being in one of them, and subtracts one "
        "from the other. What is left is the owner's update, up to how far the others' changed in between.",
        knowledge=f"{OWNER} Who is in a sum, which the messages show.",
        paper=SO,
    ),
    "disaggregated_cosine": Attack(
        name="disaggregated_cosine",
        title="Cosine with the disaggregated update",
        game="record",
        signal=DISAGGREGATED_COSINE,
        test=decide.higher,
        summary="Solves the sums of all rounds, with who was in each, for the mean update of every client, and "
        "compares the owner's with the direction this record alone would have asked for. It needs clients that come "
        "and go, and at least as many rounds as there are clients.",
        knowledge=f"{OWNER} Who is in a sum, which the messages show.",
        paper=LAM,
    ),
    "collusion_cosine": Attack(
        name="collusion_cosine",
        title="Cosine with what colluders can open",
        game="record",
        signal=COLLUSION_COSINE,
        test=decide.higher,
        summary="Lets clients of the vantage take their own updates off the sum, and pool the shares of the others' "
        "secrets that they hold; where they hold as many as the threshold asks, masks come off and single updates lie "
        "open. Then it compares what is left of the owner with the direction this record alone would have asked for.",
        knowledge=f"{OWNER} What the protocol gave to each member of the vantage: name clients in it, with the server.",
        paper=BONAWITZ,
    ),
    "lda": Attack(
        name="lda",
        title="Linear discriminant of two updates",
        game="distinguish",
        signal=TWO_UPDATES,
        test=decide.higher,
        summary="Works out what the client would have sent with either of its two sets, simulates everybody else, and "
        "asks with which of the two the sum is likelier. A model has so many parameters that even a crowd does not "
        "hide which.",
        knowledge="An auditor's worst case: all the records of both sets, the recipe to train on them, public records "
        "to simulate other clients with, and who is in a sum. Only the order of the client's batches is unknown; the "
        "mean of three orders stands for it.",
        paper=NGO,
    ),
    "one_record": Attack(
        name="one_record",
        title="One record of each set",
        game="distinguish",
        signal=ONE_RECORD,
        test=decide.higher,
        summary="Asks whether the sum points more where one record of the second set would have pulled the model than "
        "where one of the first would. It is what somebody can do who knows single records, and in a crowd of K the "
        "trace is about 1/K of the sum.",
        knowledge="One record of each of the two sets, and who is in a sum.",
        paper=NGO,
    ),
    # Against the acts of an adversary; the model of a record's owner also speaks where nobody acts.
    "ascent_recovery": Attack(
        name="ascent_recovery",
        title="Recovery from gradient ascent",
        game="record",
        signal=ASCENT_RECOVERY,
        test=decide.higher,
        summary="Asks how the loss on a record stands after the adversary has pushed the model up it and the others "
        "have answered, against before. Whoever trains on the record pulls it down again.",
        knowledge="An audit whose adversary is gradient_ascent, and the records it pushes against.",
        paper=NASR_2019,
    ),
    "ascent_lira": Attack(
        name="ascent_lira",
        title="Recovery from gradient ascent, likelihood ratio",
        game="record",
        signal=ASCENT_RECOVERY,
        test=partial(lira.online, spread="auto"),
        summary="Asks which explains the recovery from gradient ascent better: federations that trained on the record "
        "or federations that did not. Each record has its own two bell curves.",
        knowledge="An audit whose adversary is gradient_ascent, and reference federations in which the same was done.",
        paper=NASR_2019,
        min_references=2,
    ),
    "owner_loss": Attack(
        name="owner_loss",
        title="Loss of the owner's model",
        game="record",
        signal=trajectories.OWNER_LOSS,
        test=decide.lower,
        summary="Says that the records were in training on which the model that their owner sent last errs least. A "
        "server that isolates the owner (adversary isolation) keeps all other clients from washing that out.",
        knowledge=OWNER,
        paper=NASR_2019,
    ),
    "owner_lira": Attack(
        name="owner_lira",
        title="Likelihood ratio of the owner's model",
        game="record",
        signal=trajectories.OWNER_MARGIN,
        test=partial(lira.online, spread="auto"),
        summary="The likelihood-ratio attack on the model that the record's owner sent last. A server that isolates "
        "the owner (adversary isolation) keeps all other clients from washing that out.",
        knowledge=OWNER_AND_REFERENCES,
        paper=NASR_2019,
        min_references=2,
    ),
    "inconsistency_cosine": Attack(
        name="inconsistency_cosine",
        title="Cosine with a singled-out update",
        game="record",
        signal=SINGLED_OUT_COSINE,
        test=decide.higher,
        summary="Compares a record's gradient with a sum to which, thanks to inconsistent models, only the record's "
        "owner has added something. Secure aggregation hides nothing then, unless clients compare what they were sent.",
        knowledge="An audit whose adversary is inconsistent_models, and which client is alleged to hold the record.",
        paper=PASQUINI,
    ),
    "canary_gradient": Attack(
        name="canary_gradient",
        title="Canary gradient",
        game="record",
        signal=CANARY_GRADIENT,
        test=decide.higher,
        summary="Reads from a singled-out update whether the unit that was crafted to answer to this record, and to no "
        "other, has moved. It has exactly if the record was in training.",
        knowledge="An audit whose adversary is canary_gradient, and which client is alleged to hold the record.",
        paper=PASQUINI,
    ),
    # Against a training that the attacker poisoned.
    "property_snap": Attack(
        name="property_snap",
        title="Belief in the poison (SNAP)",
        game="property",
        signal=POISONED_BELIEF,
        test=partial(lira.online, spread="auto"),
        summary="A participant trains on records with the property under one label, and asks how much the model "
        "believes it. The rarer the property is among the others' records, the less there is to contradict the poison.",
        knowledge="An audit whose adversary is property_poisoning, public records with the property, and reference "
        "federations poisoned alike.",
        paper=CHAUDHARI,
        min_references=4,
    ),
}
"""Every attack by name."""
