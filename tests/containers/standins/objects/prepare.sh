install -d -o 10001 /data
