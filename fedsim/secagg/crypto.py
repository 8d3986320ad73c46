"""What the protocol takes from cryptography: keys agreed in pairs, keys derived from keys, sealed letters, streams."""

from collections.abc import Sequence

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

Words = NDArray[np.uint32] | NDArray[np.uint64]

KEY_BYTES = 32
NONCE = bytes(12)  # each sealing key is derived for one letter, so it never meets a nonce twice
START = bytes(16)  # and each stream's key for one stream


def derive(secret: bytes, *names: str | int, length: int = KEY_BYTES) -> bytes:
    """Return `length` bytes that belong to `names` and tell nothing of `secret` (HKDF-SHA256).

    Source: Krawczyk and Eronen, RFC 5869, https://www.rfc-editor.org/rfc/rfc5869
    """
    return HKDF(SHA256(), length, salt=None, info="\x1f".join(map(str, names)).encode()).derive(secret)


def public_key(private: bytes) -> bytes:
    """Return the public key [32 bytes] of an X25519 private key [32 bytes]."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: Sequence[bytes]) -> list[bytes]:
    """Return the secrets [32 bytes] that the owner of an X25519 key shares with those of others, in their order.

    Raises ValueError for a public key with which everybody would get the same secret.
    Source: Langley, Hamburg and Turner, RFC 7748, https://www.rfc-editor.org/rfc/rfc7748
    """
    key = X25519PrivateKey.from_private_bytes(private)
    return [key.exchange(X25519PublicKey.from_public_bytes(other)) for other in public]


def seal(key: bytes, text: bytes, associated: bytes) -> bytes:
    """Return `text` encrypted and authenticated, together with `associated`, by AES-256-GCM; one letter a key."""
    return AESGCM(key).encrypt(NONCE, text, associated)


def unseal(key: bytes, sealed: bytes, associated: bytes) -> bytes | None:
    """Return what `seal` was given, or None where key, letter or `associated` is not the one it was sealed with."""
    try:
        return AESGCM(key).decrypt(NONCE, sealed, associated)
    except InvalidTag:
        return None


def stream(key: bytes, length: int, bits: int) -> Words:
    """Return `length` words of `bits` (32 or 64) bits, uniform to anybody without the key [32 bytes] (AES-256-CTR)."""
    data = Cipher(AES(key), CTR(START)).encryptor().update(bytes(length * bits // 8))
    return np.frombuffer(data, dtype=f"<u{bits // 8}")
