"""The web pages: upload, watch the fine-tune, chat, rate."""
