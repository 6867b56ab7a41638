"""What provisioning reads from the environment."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from provision.rights import RIGHTS


class Settings(BaseSettings):
    """Addresses of the servers, names of their root users, and the folder with every secret, as a file each."""

    model_config = SettingsConfigDict(env_prefix="SARTOR_", frozen=True, extra="ignore")

    secrets_dir: Path = Field(Path("/run/secrets"), description="Folder of the secrets.")
    mongo_url: str = Field("mongodb://mongodb:27017/?replicaSet=rs0", description="MongoDB, without credentials.")
    mongo_root_user: str = Field("sartor", description="MongoDB's root user; its password is `mongo_password`.")
    mongo_database_prefix: str = Field("sartor_", description="Each service uses the database prefix + its name.")
    mongo_seconds: float = Field(60, description="How long a primary may take to be there.")
    objects_endpoint: str = Field("objects:9000", description="host:port of the object store.")
    objects_root_user: str = Field("sartor", description="The store's root; its secret key is `objects_secret_key`.")
    objects_bucket: str = Field("sartor", description="Bucket of all objects.")

    def secret(self, name: str) -> str:
        """The text of one secret."""
        return (self.secrets_dir / name).read_text().strip()

    def mongo_passwords(self) -> dict[str, str]:
        """The password in each service's connection string, for those that have a database."""
        with_documents = (service for service, rights in RIGHTS.items() if rights.documents)
        return {service: urlsplit(self.secret(f"{service}_mongo_url")).password or "" for service in with_documents}

    def objects_keys(self) -> dict[str, str]:
        """Each service's secret key."""
        return {service: self.secret(f"{service}_objects_key") for service in RIGHTS}
