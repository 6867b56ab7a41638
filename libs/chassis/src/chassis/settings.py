"""The settings every service shares. A service subclasses `ServiceSettings`; nothing else reads the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Addresses, credentials and limits common to all services, read from `SARTOR_*` environment variables.

    Any setting can be given as a file instead, by the name with `_FILE` added (Docker and Kubernetes secrets):
    see `secret_from_file`. Times are in seconds, sizes in bytes.
    """

    model_config = SettingsConfigDict(env_prefix="SARTOR_", frozen=True, extra="ignore")

    service_host: str = Field("127.0.0.1", description="Address the service's HTTP server binds to.")
    service_port: int = Field(8000, description="Port of the service's HTTP server.")
    log_level: str = Field("INFO", description="Lowest level that is logged.")
    log_json: bool | None = Field(None, description="JSON lines if true, console if false, by terminal if unset.")
    replica_id: str = Field("", description="Name of this replica in leases; host and process id if empty.")

    kafka_bootstrap: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers, comma separated.")
    kafka_idempotent: bool = Field(True, description="Idempotent producer; off for brokers without InitProducerId.")
    kafka_session_timeout_ms: int = Field(45_000, description="After this silence a consumer is taken for dead.")
    kafka_replication: int = Field(1, description="Replication factor of topics the services create.")
    topic_prefix: str = Field("", description="Prefix of every topic and consumer group; isolates test runs.")

    mongo_url: SecretStr = Field(SecretStr("mongodb://127.0.0.1:27017"), description="MongoDB connection string.")
    mongo_url_file: Path | None = Field(None, description="File holding the MongoDB connection string.")
    mongo_database_prefix: str = Field("sartor_", description="Each service uses the database prefix + its name.")

    objects_endpoint: str = Field("127.0.0.1:9000", description="host:port of the S3 API.")
    objects_access_key: str = Field("sartor", description="Access key of the object store.")
    objects_secret_key: SecretStr = Field(SecretStr(""), description="Secret key of the object store.")
    objects_secret_key_file: Path | None = Field(None, description="File holding the object store's secret key.")
    objects_bucket: str = Field("sartor", description="Bucket of all artifacts.")
    objects_secure: bool = Field(False, description="Use TLS towards the object store.")
    orphan_sweep_seconds: float = Field(3600, description="Between looks for objects that nothing points at.")
    orphan_age_seconds: float = Field(86_400, ge=7200, description="For so long an object is never taken for one.")

    token_private_key_file: Path | None = Field(None, description="Ed25519 private key (PEM) of this service.")
    token_public_keys_file: Path | None = Field(None, description="JWKS with the public key of every service.")

    accounts_url: str = "http://127.0.0.1:8101"
    ingest_url: str = "http://127.0.0.1:8102"
    labeling_url: str = "http://127.0.0.1:8103"
    trainer_url: str = "http://127.0.0.1:8104"
    evaluator_url: str = "http://127.0.0.1:8105"
    registry_url: str = "http://127.0.0.1:8106"
    rag_indexer_url: str = "http://127.0.0.1:8107"
    inference_proxy_url: str = "http://127.0.0.1:8108"
    model_server_url: str = "http://127.0.0.1:8109"
    event_gateway_url: str = "http://127.0.0.1:8111"
    serving_agent_url: str = Field("", description="Where the serving agent listens; nowhere if empty.")

    key_cache_seconds: float = Field(30.0, description="How long a verified API key is believed without asking.")
    key_stale_seconds: float = Field(
        600.0, description="How long a verified API key is believed while accounts cannot be asked."
    )
    http_timeout: float = Field(10.0, description="Deadline of one call to another service.")
    stop_timeout: float = Field(15.0, description="How long a stopping service may take to drain.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - as pydantic calls it
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given, then the environment, and nothing else."""
        return init_settings, env_settings

    @model_validator(mode="before")
    @classmethod
    def secret_from_file(cls, values: dict[str, object]) -> dict[str, object]:
        """Fill a secret from its `_FILE` setting.

        Raises:
            ValueError: the file named by a `_FILE` setting cannot be read.
        """
        for name in ("mongo_url", "objects_secret_key"):
            path = values.get(f"{name}_file")
            if path and not values.get(name):
                try:
                    values[name] = Path(str(path)).read_text().strip()
                except OSError as error:
                    raise ValueError(f"{name}_file: cannot read {path}: {error.strerror}") from error
        return values
