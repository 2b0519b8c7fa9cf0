"""Keys with certificates, as agents have them."""

from __future__ import annotations

import datetime
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Identity:
    """A self-signed certificate with its key, as the role makes one, or one that another has signed.

    It is valid from `age` days ago, for `days` days from now.
    """

    def __init__(
        self, folder: Path, name: str, by: Identity | None = None, days: int = 30, age: int = 40
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(by.subject if by else self.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=age))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
            .sign(by.key if by else self.key, hashes.SHA256())
        )
        self.pem = made.public_bytes(serialization.Encoding.PEM).decode()
        private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = folder / f"{name}.pem"
        file.write_bytes(private + self.pem.encode())
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(file)

    @staticmethod
    def of(name: str) -> str:
        """A certificate, in PEM, whose key is gone."""
        with tempfile.TemporaryDirectory() as folder:
            return Identity(Path(folder), name).pem
