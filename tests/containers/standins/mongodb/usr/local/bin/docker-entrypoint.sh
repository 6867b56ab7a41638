#!/venv/bin/python
"""Starts the server as MongoDB's image does: first without checks, to make the root user, then with them."""

import os
import pathlib
import subprocess
import sys
import time

from pymongo import MongoClient
from pymongo.errors import PyMongoError

folder = sys.argv[sys.argv.index("--dbpath") + 1]
command = ["secantusd-py", "--port", "27017", "--storage-path", folder]
made = pathlib.Path(folder, "root-user-made")
if not made.exists():
    server = subprocess.Popen([*command, "--host", "127.0.0.1"])
    client = MongoClient("mongodb://127.0.0.1:27017/?directConnection=true&retryWrites=false")
    password = pathlib.Path(os.environ["MONGO_INITDB_ROOT_PASSWORD_FILE"]).read_text().strip()
    until = time.monotonic() + 60
    while True:
        try:
            client.admin.command("createUser", os.environ["MONGO_INITDB_ROOT_USERNAME"], pwd=password, roles=["root"])
            break
        except PyMongoError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
    client.close()
    server.terminate()
    server.wait()
    made.touch()
os.execvp(command[0], [*command, "--host", "0.0.0.0", "--auth"])
