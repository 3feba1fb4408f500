"""What several processes and machines count together, in Redis. Nobody else imports `limits` and `redis`."""
