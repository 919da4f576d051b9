"""``virmo``, the operator's command line; talks to the server's HTTP API only."""
