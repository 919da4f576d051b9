"""The schema of the agent's database, as the steps that lead to it: ``MIGRATIONS[n]`` takes version n to n + 1.

A step that was released is never edited, only followed by another one. Each step runs in one transaction together with
the bump of ``user_version``, so a database is always at exactly one version.
"""

from __future__ import annotations

_FIRST = (
    # Nodes of the management tree; "path" is the decoded segments joined by "/", which no name can hold; root "".
    """
    CREATE TABLE node (
        path TEXT PRIMARY KEY,
        format TEXT NOT NULL,
        type TEXT NOT NULL,
        data ANY,
        acl TEXT NOT NULL,
        title TEXT NOT NULL,
        tstamp TEXT NOT NULL,
        verno INTEGER NOT NULL,
        untouched INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE vm (
        vmid TEXT PRIMARY KEY,
        state INTEGER NOT NULL,
        img_id TEXT,
        ram INTEGER NOT NULL,
        storage INTEGER NOT NULL,
        cpu INTEGER NOT NULL,
        network INTEGER NOT NULL,
        reserved TEXT,
        running_step TEXT,
        last_error TEXT,
        vendor TEXT NOT NULL,
        macs TEXT NOT NULL,
        disks TEXT NOT NULL,
        build TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE operation (
        operation_id TEXT PRIMARY KEY,
        vmid TEXT,
        primitive TEXT NOT NULL,
        origin TEXT,
        params TEXT NOT NULL,
        undoing INTEGER NOT NULL,
        reason TEXT,
        started REAL NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE operation_step (
        operation_id TEXT NOT NULL REFERENCES operation ON DELETE CASCADE,
        position INTEGER NOT NULL,
        name TEXT NOT NULL,
        state TEXT NOT NULL,
        detail TEXT NOT NULL,
        PRIMARY KEY (operation_id, position)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE image (
        img_id TEXT PRIMARY KEY,
        state INTEGER NOT NULL,
        location TEXT,
        progress INTEGER NOT NULL,
        size INTEGER NOT NULL,
        last_error TEXT,
        uri TEXT NOT NULL,
        media_type TEXT NOT NULL,
        etag TEXT,
        received INTEGER NOT NULL,
        total INTEGER,
        sha256 TEXT,
        origin TEXT,
        manifest TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        server_id TEXT NOT NULL,
        alert_type TEXT NOT NULL,
        format TEXT NOT NULL,
        mark TEXT,
        source_uri TEXT NOT NULL,
        correlator TEXT,
        data TEXT NOT NULL,
        created REAL NOT NULL,
        attempts INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX outbox_by_server ON outbox (server_id, id)",
    """
    CREATE TABLE nonce (
        account TEXT NOT NULL,
        role TEXT NOT NULL,
        nonce BLOB NOT NULL,
        PRIMARY KEY (account, role)
    ) STRICT, WITHOUT ROWID
    """,
)

#: Vendor parameters of a VM's resources (R-052): a JSON list of [key, value].
_RESOURCES_VENDOR = ("ALTER TABLE vm ADD COLUMN resources_vendor TEXT NOT NULL DEFAULT '[]'",)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _RESOURCES_VENDOR)
