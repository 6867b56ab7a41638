useradd --system --uid 999 mongodb
install -d -o mongodb /data/db
