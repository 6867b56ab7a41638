install -d -o 10001 /var/lib/milvus
