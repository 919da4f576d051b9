"""Messages that together use every element of the representation: fixtures of codec and conformance tests."""

from __future__ import annotations

from dataclasses import replace

from dom0_agent.omadm import commands as c

_SERVER, _DEVICE = "https://server.example/dm", "urn:uuid:4c3c5a3e-0000-4000-8000-000000000001"
_TNDS = (
    '<MgmtTree xmlns="syncml:dmddf1.2"><VerDTD>1.2</VerDTD><Node><NodeName>a</NodeName><RTProperties><Format><node/>'
    "</Format><Type><DDFName/></Type></RTProperties></Node></MgmtTree>"
)


def _device(*body: c.BodyElement, final: bool = True, msg_id: int = 1) -> c.Message:
    return c.Message(c.SyncHdr("1F", msg_id, _SERVER, _DEVICE), body, final)


def _server(*body: c.BodyElement, final: bool = True, msg_id: int = 1) -> c.Message:
    return c.Message(c.SyncHdr("1F", msg_id, _DEVICE, _SERVER), body, final)


def _item(target: str, data: c.Data | None = None, meta: c.Meta | None = None) -> c.Item:
    return c.Item(target=target, data=data, meta=meta)


MESSAGES: dict[str, c.Message] = {
    "package 1": c.Message(
        c.SyncHdr(
            "FFFF",
            1,
            _SERVER,
            _DEVICE,
            source_name="Bruce2",
            cred=c.Cred(c.Meta("b64", "syncml:auth-md5"), "Zz6EivR3yeaaENcRN6lpAQ=="),
            meta=c.Meta(max_msg_size=65536, max_obj_size=1048576),
        ),
        (
            c.Alert("1", 1201),
            c.Replace(
                "2",
                (
                    c.Item(source="./DevInfo/DevId", data=_DEVICE),
                    c.Item(source="./DevInfo/Man", data="ACME & Söhne <GmbH>"),
                    c.Item(source="./DevInfo/Lang", data="de"),
                ),
            ),
        ),
    ),
    "challenge": _server(
        c.Status(
            "1",
            1,
            "0",
            "SyncHdr",
            407,
            target_refs=(_SERVER,),
            source_refs=(_DEVICE,),
            chal=c.Chal(c.Meta("b64", "syncml:auth-md5", next_nonce="Tm9uY2U=")),
        ),
        c.Status("2", 1, "1", "Alert", 407),
        c.Status("3", 1, "2", "Replace", 407),
    ),
    "response uri and names": c.Message(
        c.SyncHdr(
            "A", 7, _DEVICE, _SERVER, target_name="device", source_name="server", resp_uri="https://x/dm?s=1&t=2"
        ),
        (c.Status("1", 1, "0", "SyncHdr", 212),),
    ),
    "every item command": _server(
        c.Get("1", (_item("./DevDetail/FwV"), _item("./VirMO?list=Struct"))),
        c.Add(
            "2",
            (_item("./VirMO/vm1", "", c.Meta("node")), _item("./VirMO/vm1/Name", "vm 1", c.Meta("chr", "text/plain"))),
        ),
        c.Replace("3", (_item("./VirMO/vm1?prop=ACL", "Get=*"),), c.Meta("chr")),
        c.Copy("4", (c.Item(target="./a", source="./b"),)),
        c.Delete("5", (_item("./VirMO/vm1"),)),
        c.Exec("6", (_item("./VMImgMO/a/Operations/Download", "arg"),), correlator="abc123"),
    ),
    "containers": _server(
        c.Atomic("1", (c.Add("2", (_item("./a", "1"),)), c.Alert("3", 1101, (c.Item(data=""), c.Item(data="Sure?"))))),
        c.Sequence("4", (c.Get("5", (_item("./a"),)), c.Atomic("6", (c.Delete("7", (_item("./a"),)),)))),
    ),
    "results": _device(
        c.Status("1", 1, "0", "SyncHdr", 212),
        c.Status("2", 1, "1", "Get", 200, ("./VirMO",)),
        c.Results("3", 1, "1", (c.Item(source="./VirMO", meta=c.Meta("node"), data="vm1/vm2"),)),
        c.Results("4", 1, "1", (c.Item(source="./x", meta=c.Meta("int", "text/plain"), data="42"),), source_ref="./x"),
        c.Status("5", 1, "9", "Add", 418, ("./b",), ("./c", "./d")),
    ),
    "generic alert": _device(
        c.Alert("1", 1201),
        c.Alert(
            "2",
            1226,
            (
                c.Item(
                    source="./VMImgMO/a/Operations/Download",
                    meta=c.Meta("xml", "urn:oma:at:oma-virmo:imageready:1.0", "warning"),
                    data="",
                ),
            ),
            correlator="abc123",
        ),
    ),
    "user interaction": _server(
        c.Alert("1", 1100, (c.Item(data="MINDT=10"), c.Item(data="Management in progress"))),
        c.Alert(
            "2", 1103, (c.Item(data="MAXDT=20&DR=2"), c.Item(data="Choose"), c.Item(data="one"), c.Item(data="two"))
        ),
        c.Status("3", 2, "5", "Alert", 200, items=(c.Item(data="1"), c.Item(data="2"))),
    ),
    "first chunk": _server(
        c.Add("1", (c.Item("./big", meta=c.Meta("b64", "image/png", size=3000), data="AAAA" * 20, more_data=True),)),
        final=False,
    ),
    "next message": _device(c.Status("1", 2, "1", "Add", 213), c.Alert("2", 1222), msg_id=3),
    "tnds in data": _server(
        c.Add("1", (_item("./Inbox", _TNDS, c.Meta("xml", "application/vnd.syncml.dmtnds+xml")),)),
    ),
    "other scripts": _server(c.Replace("1", (_item("./a", "\u4e2d\u6587 \u0440\u0443\u0441 \U0001f600 a\tb"),))),
}


def textual(message: c.Message) -> c.Message:
    """libwbxml writes Data of Add and Replace as OPAQUE: the octets of the same text."""

    def fix(command: c.BodyElement) -> c.BodyElement:
        if isinstance(command, c.Container):
            return replace(command, commands=tuple(fix(member) for member in command.commands))
        if isinstance(command, c.UnknownCommand):
            return command
        items = getattr(command, "items", ())
        fixed = tuple(replace(i, data=i.data.decode()) if isinstance(i.data, bytes) else i for i in items)
        return replace(command, items=fixed) if items else command

    return replace(message, body=tuple(fix(command) for command in message.body))
