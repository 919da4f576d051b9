"""The OMA DM endpoint: joins the protocol library's server session with devices and orders."""
