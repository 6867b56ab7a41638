install -d /config /data
