"""What all bodies of the HTTP API have in common: unknown keys are refused, texts have a length and a character set."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

#: Names that operators give: what needs no quoting in a shell or a URL. Free text belongs into descriptions.
NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$"
#: What XML 1.0 can carry, without line breaks: texts travel to devices in XML. Said by what is not in it: programs that
#: make examples from the API's description take minutes for a class of a million characters.
TEXT_PATTERN = r"^[^\x00-\x1f\x7f-\x9f\ufffe\uffff]*$"
#: The same with line breaks and tabs, for values of nodes.
XML_TEXT_PATTERN = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]*$"
#: ``.`` or ``./A/B``, with ``?prop=`` or ``?list=``; the device checks the rest.
URI_PATTERN = r"^\.(/[^/\x00-\x20\x7f-\x9f?#]+)*(\?(prop|list)=[A-Za-z+-]+)?$"
SHA256_PATTERN = r"^[0-9a-fA-F]{64}$"
FILE_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
MEDIA_TYPE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,99}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,99}$"
LABEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._=-]{0,62}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN, min_length=1, max_length=64)]
Text = Annotated[str, Field(pattern=TEXT_PATTERN, max_length=1024)]
Label = Annotated[str, Field(pattern=LABEL_PATTERN)]
#: A URN; without slash, because it can name the device in our URLs.
DevId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*:[!-.0-~]+$", max_length=255)]
#: MD5 credentials are joined with ``:``, so names must not have one.
CredentialName = Annotated[str, Field(pattern=r"^[!-9;-~]{1,255}$")]
#: As RFC 4514 writes it, ``CN=board-1,O=Example``; the server compares the texts.
CertificateSubject = Annotated[str, Field(pattern=r"^[A-Za-z0-9.]+=[^\x00-\x1f\x7f]+$", max_length=1024)]
Secret = Annotated[str, Field(pattern=r"^[!-~]+$", min_length=8, max_length=255)]
DeadlineSeconds = Annotated[int, Field(ge=1, le=90 * 86400)]


class Body(BaseModel):
    """Parent of what clients send."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class View(BaseModel):
    """Parent of what the server answers."""

    model_config = ConfigDict(frozen=True)
