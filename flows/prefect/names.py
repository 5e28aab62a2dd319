"""Names that the Prefect modules share."""

TAG = "edgestill"  # of every deployment; `edgestill ui` checks the forms of these
CATCH_UP = "catch-up"  # tag of a run that makes up for missed ones
RETENTION = "EDGESTILL_RETENTION"  # variable of the serving process, which the API of a server cannot set
