"""Classical models trained or trimmed to be robust, each with its exact answer."""
