"""One job: what is attacked with what."""
