"""A certificate authority of this run alone, for a provider that is reached over TLS."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    authority: Path  # what clients must trust
    provider: Path  # the provider's chain and key


def made(folder: Path) -> Certificates:
    authority = trustme.CA()
    files = Certificates(folder / "authority.pem", folder / "provider.pem")
    authority.cert_pem.write_to_path(str(files.authority))
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(files.provider)
    )
    return files


def trusting(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates.authority))
