"""DDF 1.2: the node definitions that the code works by, printed for servers (OMA-TS-DM-DDF; digest 8, R-170).

Knows definitions only. Everything printed comes from :class:`NodeDef`; there is no second description to go stale.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape

from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Command, Format, NodeDef, Scope
from dom0_agent.omadm.tree_values import DEFAULT_TYPE

VERSION = "1.2"
HEADER = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<!DOCTYPE MgmtTree PUBLIC "-//OMA//DTD-DM-DDF 1.2//EN"'
    ' "http://www.openmobilealliance.org/tech/DTD/DM_DDF-V1_2.dtd">\n'
)

#: AccessType's content model has them in this order
_ACCESS_ORDER = (Command.ADD, Command.COPY, Command.DELETE, Command.EXEC, Command.GET, Command.REPLACE)
_INDENT = "  "


def ddf_document(objects: Iterable[tuple[Path, NodeDef]], *, man: str = "", mod: str = "") -> str:
    """The DDF of these objects, each given as where its root is and what it is, as an indented XML document."""
    lines = ["<MgmtTree>", f"{_INDENT}<VerDTD>{VERSION}</VerDTD>"]
    for tag, text in (("Man", man), ("Mod", mod)):
        if text:
            lines.append(f"{_INDENT}<{tag}>{escape(text)}</{tag}>")
    for mount, definition in objects:
        lines += _node(definition, 1, name=mount[-1], path="/".join((".", *mount[:-1])))
    lines.append("</MgmtTree>")
    return HEADER + "\n".join(lines) + "\n"


def _node(definition: NodeDef, depth: int, *, name: str, path: str | None = None) -> list[str]:
    indent = _INDENT * depth
    lines = [f"{indent}<Node>", f"{indent}{_INDENT}{_text('NodeName', name)}"]
    if path is not None:
        lines.append(f"{indent}{_INDENT}{_text('Path', path)}")
    lines += (f"{indent}{_INDENT}{line}" for line in (*_run_time(definition), *_properties(definition)))
    for child in definition.children:
        lines += _node(child, depth + 1, name="" if child.name == "*" else child.name)
    lines.append(f"{indent}</Node>")
    return lines


def _run_time(definition: NodeDef) -> list[str]:
    """The properties that nodes have at run time; only leaves have a Size."""
    names = ["<ACL/>", f"<Format><{definition.format.value}/></Format>", "<Name/>"]
    if not definition.is_interior:
        names.append("<Size/>")
    names += ["<Title/>", "<TStamp/>", f"<Type>{_type(definition)}</Type>", "<VerNo/>"]
    return ["<RTProperties>", *(_INDENT + name for name in names), "</RTProperties>"]


def _properties(definition: NodeDef) -> list[str]:
    access = "".join(f"<{command}/>" for command in _ACCESS_ORDER if command in definition.access)
    lines = [f"<AccessType>{access}</AccessType>"]
    if definition.default:
        lines.append(_text("DefaultValue", definition.default))
    if definition.description:
        lines.append(_text("Description", definition.description))
    lines.append(f"<DFFormat><{definition.format.value}/></DFFormat>")
    lines.append(f"<Occurrence>{_occurrence(definition.occurrence)}</Occurrence>")
    lines.append(f"<Scope><{'Permanent' if definition.scope is Scope.PERMANENT else 'Dynamic'}/></Scope>")
    if definition.title:
        lines.append(_text("DFTitle", definition.title))
    lines.append(f"<DFType>{_types(definition)}</DFType>")
    lines.append("<CaseSense><CS/></CaseSense>")
    return ["<DFProperties>", *(_INDENT + line for line in lines), "</DFProperties>"]


def _occurrence(occurrence: str) -> str:
    name, _, limit = occurrence.partition(":")
    return f"<{name}>{limit}</{name}>" if limit else f"<{name}/>"


def _type(definition: NodeDef) -> str:
    """A leaf's first MIME type, an interior node's MOID or an empty DDFName."""
    if definition.format is Format.NODE:
        return _text("DDFName", definition.types[0] if definition.types else "")
    return _text("MIME", definition.types[0] if definition.types else DEFAULT_TYPE)


def _types(definition: NodeDef) -> str:
    if definition.format is Format.NODE or not definition.types:
        return _type(definition)
    return "".join(_text("MIME", type_) for type_ in definition.types)


def _text(tag: str, text: str) -> str:
    return f"<{tag}>{escape(text)}</{tag}>" if text else f"<{tag}/>"
