"""Settings of every test run: no model hub, one thread each, one certificate, one XML parser, the shared fixtures."""

import os
import ssl
import tempfile
from pathlib import Path

import certifi

END = "-----END CERTIFICATE-----\n"
FOLDER = tempfile.TemporaryDirectory(prefix="sartor-certificate-")
CERTIFICATE = Path(FOLDER.name, "one.pem")
"""No test talks TLS, and every HTTP client that is made loads all certificates: a tenth of a second for the usual."""

CERTIFICATE.write_text(Path(certifi.where()).read_text().partition(END)[0] + END)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["OPENPYXL_LXML"] = "False"  # as the parser of uploads runs, in whose image there is no lxml
os.environ["SSL_CERT_FILE"] = str(CERTIFICATE)
PATHS = ssl.get_default_verify_paths()._replace(openssl_cafile=str(CERTIFICATE), openssl_capath="")
ssl.get_default_verify_paths = lambda: PATHS  # of clients that read nothing from the environment

pytest_plugins = ["testkit.plugin", "tests.local_stack"]
