"""Which archives an image is built from: those of Debian's release among what apt uses, and how they are reached."""

from __future__ import annotations

from image.sources import Source, parse_fetch_settings, parse_index_targets, parse_keyrings, sources_list

TARGETS = """\
Debian|bookworm|bookworm|main|http://mirror.test/debian/
Debian|bookworm|bookworm|contrib|http://mirror.test/debian/
Debian|bookworm-security|bookworm-security|main|http://mirror.test/security/
Debian|trixie|testing|main|http://mirror.test/debian/
A Vendor|bookworm|bookworm|main|http://vendor.test/apt/
$(ORIGIN)|$(CODENAME)|bookworm|main|http://never-fetched.test/
""".splitlines()


def test_only_debian_of_the_wanted_release() -> None:
    assert parse_index_targets(TARGETS) == (
        Source("http://mirror.test/debian/", "bookworm", ("contrib", "main")),
        Source("http://mirror.test/security/", "bookworm-security", ("main",)),
    )


def test_an_archive_named_by_its_suite_is_known_by_its_codename() -> None:
    found = parse_index_targets(["Debian|bookworm|oldstable|main|http://mirror.test/debian/"])
    assert found == (Source("http://mirror.test/debian/", "oldstable", ("main",)),)


def test_nothing_is_not_an_error_here() -> None:
    assert parse_index_targets([]) == ()


def test_sources_list_names_the_keyrings() -> None:
    text = sources_list([Source("http://m.test/d", "bookworm", ("main",))], ("/k/a.gpg", "/k/b.gpg"))
    assert text == "deb [signed-by=/k/a.gpg,/k/b.gpg] http://m.test/d bookworm main\n"


def test_sources_list_without_keyrings_leaves_trust_to_apt() -> None:
    assert sources_list([Source("http://m.test/d", "bookworm", ("main",))]) == "deb http://m.test/d bookworm main\n"


def test_keyrings_of_both_notations() -> None:
    one_line = "deb [arch=amd64 signed-by=/k/one.gpg,/k/two.gpg] http://m.test/d bookworm main\n"
    deb822 = "Types: deb\nURIs: http://m.test/d\nSigned-By: /k/three.gpg\n"
    inline = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n"
    assert parse_keyrings([one_line, deb822, inline]) == ("/k/one.gpg", "/k/three.gpg", "/k/two.gpg")


def test_how_archives_are_reached_is_taken_over() -> None:
    dump = [
        'APT::Architecture "amd64";',
        'Acquire::http::Proxy "http://proxy.test:3142";',
        'Acquire::Check-Valid-Until "false";',
        'Acquire::IndexTargets::deb::Packages::MetaKey "x";',
        'Acquire::httpsomething "x";',
    ]
    assert parse_fetch_settings(dump) == (
        'Acquire::http::Proxy "http://proxy.test:3142";\nAcquire::Check-Valid-Until "false";\n'
    )
