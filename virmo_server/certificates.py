"""Makes the certificates of a trial installation: an own CA and a server certificate signed by it.

For production an operator puts certificates of a real CA into the configuration; nothing else depends on this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
#: Longest lifetime that common TLS clients accept of a server certificate.
SERVER_DAYS = 825
#: Boards are hard to reach: as long as the CA lives.
CLIENT_DAYS = 3650
SERVER_AUTH, CLIENT_AUTH = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
#: Boards without a battery clock boot with an old time; certificates must be valid for them already.
BACKDATE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a trial server needs."""

    ca: Pair
    server: Pair


def make_certificates(hosts: Sequence[str], *, now: datetime | None = None) -> Certificates:
    """A new CA and a certificate for ``hosts`` (host names and IP addresses, each becomes a subjectAltName)."""
    if not hosts:
        raise ValueError("a server certificate needs at least one host name or IP address")
    start = (now or datetime.now(UTC)) - BACKDATE
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "VirMO Server trial CA")])
    ca_public = ca_key.public_key()
    ca = (
        _builder(ca_name, ca_name, ca_public, start, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_public), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    server = (
        _leaf(_builder(subject, ca_name, key.public_key(), start, SERVER_DAYS), SERVER_AUTH, ca_public)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return Certificates(ca=_pair(ca, ca_key), server=_pair(server, key))


def make_client_certificate(ca: Pair, name: str, *, now: datetime | None = None) -> Pair:
    """A certificate by which a board shows in TLS that it is ``CN=name``, signed by ``ca``."""
    authority = x509.load_pem_x509_certificate(ca.certificate)
    ca_key = serialization.load_pem_private_key(ca.key, None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise ValueError("it is not a CA that this program has made")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = (now or datetime.now(UTC)) - BACKDATE
    builder = _builder(subject, authority.subject, key.public_key(), start, CLIENT_DAYS)
    return _pair(_leaf(builder, CLIENT_AUTH, ca_key.public_key()).sign(ca_key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
    )


def _leaf(
    builder: x509.CertificateBuilder, purpose: x509.ObjectIdentifier, ca: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    """What all certificates that are no CA have in common."""
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca), critical=False)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
