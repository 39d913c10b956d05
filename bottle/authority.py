"""A certificate authority for one bottle and one launch: its key goes to the bundle's memory, its certificate in."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from opsexec.secret import Secret

LIFETIME = timedelta(days=30)
SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class Authority:
    """`certificate`: PEM. `fingerprint`: SHA-256, upper-case hex. `key_and_certificate`: PEM, for egress alone."""

    certificate: str
    fingerprint: str
    key_and_certificate: Secret = field(repr=False)


NOBODY = Authority("", "", Secret(""))
"""In the place of one where a plan's steps are only looked at."""


def mint(identity: str) -> Authority:
    """Make an authority that no other bottle shares."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"bottle {identity}"[:64])])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return Authority(pem, certificate.fingerprint(hashes.SHA256()).hex(":").upper(), Secret(private + pem))
