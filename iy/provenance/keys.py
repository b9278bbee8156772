"""Whose signature pictures carry: a certificate of the settings, else one that is made here at first use.

The one made here lies in `~/.iy/signing.pem` (or in the folder that IY_KEYS names), readable by its owner alone. Nobody
vouches for it, and its name says so. Its second certificate, which C2PA wants above the first, has a key that is thrown
away.
"""

import datetime
import logging
import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from iy.errors import UserError
from iy.params import Provenance

log = logging.getLogger(__name__)
NAME = "iy, self-signed: nobody vouches for this name"
YEARS = 10
CURVES = {"secp256r1": ("es256", 32, hashes.SHA256()), "secp384r1": ("es384", 48, hashes.SHA384())}
Private = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Signatory:
    """A key with its certificates as PEM, its own first. Equal data give equal signatures."""

    key: Private
    chain: str

    @cached_property
    def algorithm(self) -> str:
        """C2PA's name of how it signs."""
        return "ed25519" if isinstance(self.key, ed25519.Ed25519PrivateKey) else CURVES[self.key.curve.name][0]

    @cached_property
    def length(self) -> int:
        """Of a signature, in bytes."""
        return 64 if isinstance(self.key, ed25519.Ed25519PrivateKey) else 2 * CURVES[self.key.curve.name][1]

    @cached_property
    def secret(self) -> bytes:
        """The private key as PEM: what nobody else can compute with."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, data: bytes) -> bytes:
        """RFC 8032, or RFC 6979 with r and s side by side: neither draws a random number."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(data)
        _, side, digest = CURVES[self.key.curve.name]
        pair = decode_dss_signature(self.key.sign(data, ec.ECDSA(digest, deterministic_signing=True)))
        return b"".join(number.to_bytes(side, "big") for number in pair)


def signatory(settings: Provenance) -> Signatory:
    """The one of the settings, else this user's own."""
    if (settings.certificate is None) != (settings.key is None):
        raise UserError("provenance.certificate and provenance.key go together: name both files, or neither")
    if settings.certificate is None or settings.key is None:
        return read(own(), own())
    return read(Path(settings.certificate), Path(settings.key))


def own_file() -> Path:
    folder = os.environ.get("IY_KEYS")
    return (Path(folder) if folder else Path.home() / ".iy") / "signing.pem"


def own() -> Path:
    """The file with the key and the certificates that are made here; made now where there are none."""
    path = own_file()
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            create(path)
            log.warning("a key to sign drawn pictures with was made in %s: self-signed, nobody vouches for it", path)
        except OSError as error:
            raise UserError(
                f"{path}: no signing key can be kept there ({error.strerror}): let IY_KEYS name another folder, or "
                "name provenance.certificate and provenance.key"
            ) from None
    return path


def create(path: Path) -> None:
    """Whole, for its owner's eyes from its first byte, and never over one that another process made meanwhile."""
    descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(made())
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(aside)


def made() -> bytes:
    """A new key and its two certificates, PEM."""
    above, own = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    first, second = certificate(own, f"{NAME}", above, leaf=True), certificate(above, f"{NAME} (root)", above, False)
    secret = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return secret + first.public_bytes(Encoding.PEM) + second.public_bytes(Encoding.PEM)


def certificate(
    key: ed25519.Ed25519PrivateKey, name: str, above: ed25519.Ed25519PrivateKey, leaf: bool
) -> x509.Certificate:
    """As C2PA's profile wants it: for signing documents, or for standing above one that does."""

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(kind, text) for kind in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME)])

    today = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    other = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    usage = x509.KeyUsage(
        digital_signature=leaf, key_cert_sign=not leaf, crl_sign=not leaf, decipher_only=False, **other
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(f"{NAME} (root)"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=not leaf, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False)
    )
    if leaf:
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return made.sign(above, None)


def read(certificates: Path, key: Path) -> Signatory:
    """A signatory from PEM files, refusing what cannot sign by name."""
    try:
        private, chain = load_pem_private_key(key.read_bytes(), None), certificates.read_bytes()
        if key.stat().st_mode & 0o077:
            raise UserError(f"{key}: others may read this private key: `chmod 600 {key}`")
        found = x509.load_pem_x509_certificates(chain)
    except OSError as error:
        raise UserError(f"{error.filename}: the signing key or certificate cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UserError(f"{key}, {certificates}: not an unencrypted PEM key and its PEM certificates") from None
    signs = isinstance(private, ed25519.Ed25519PrivateKey) or (
        isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in CURVES
    )
    if not signs:
        raise UserError(f"{key}: an Ed25519, P-256 or P-384 key is needed: equal pictures shall have equal signatures")
    if spki(found[0].public_key()) != spki(private.public_key()):
        raise UserError(f"{certificates}: the first certificate is not of the key in {key}: put its own first")
    text = "".join(one.public_bytes(Encoding.PEM).decode() for one in found)
    return Signatory(private, text)  # pyright: ignore[reportArgumentType]  # `signs` says which kinds it may be


def spki(public) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
