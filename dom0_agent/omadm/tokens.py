"""The vocabularies of SyncML 1.2, MetInf 1.2 and DM DDF 1.2, with their WBXML codes (wbxml digest 3-5).

Tables only; the XML side uses the names, the WBXML side the codes, too.
"""

from __future__ import annotations


def _page(table: str) -> dict[str, int]:
    words = table.split()
    return {name: int(code, 16) for name, code in zip(words[::2], words[1::2], strict=True)}


#: global tokens, and the bit of an element's token that says that content follows (wbxml digest 2)
SWITCH_PAGE, END, ENTITY, STR_I, STR_T, OPAQUE = 0x00, 0x01, 0x02, 0x03, 0x83, 0xC3
HAS_CONTENT = 0x40

#: code page 00 - SyncML 1.2
SYNCML = _page("""
    Add 05  Alert 06  Archive 07  Atomic 08  Chal 09  Cmd 0A  CmdID 0B  CmdRef 0C  Copy 0D  Cred 0E  Data 0F  Delete 10
    Exec 11  Final 12  Get 13  Item 14  Lang 15  LocName 16  LocURI 17  Map 18  MapItem 19  Meta 1A  MsgID 1B  MsgRef 1C
    NoResp 1D  NoResults 1E  Put 1F  Replace 20  RespURI 21  Results 22  Search 23  Sequence 24  SessionID 25  SftDel 26
    Source 27  SourceRef 28  Status 29  Sync 2A  SyncBody 2B  SyncHdr 2C  SyncML 2D  Target 2E  TargetRef 2F  VerDTD 31
    VerProto 32  NumberOfChanges 33  MoreData 34  Field 35  Filter 36  Record 37  FilterType 38  SourceParent 39
    TargetParent 3A  Move 3B  Correlator 3C
""")

#: code page 01 - MetInf 1.2
METINF = _page("""
    Anchor 05  EMI 06  Format 07  FreeID 08  FreeMem 09  Last 0A  Mark 0B  MaxMsgSize 0C  Mem 0D  MetInf 0E  Next 0F
    NextNonce 10  SharedMem 11  Size 12  Type 13  Version 14  MaxObjSize 15  FieldLevel 16
""")

#: code page 02 - DM DDF and TNDS 1.2; ``Node`` and ``node`` differ by case only
DDF = _page("""
    AccessType 05  ACL 06  Add 07  b64 08  bin 09  bool 0A  chr 0B  CaseSense 0C  CIS 0D  Copy 0E  CS 0F  date 10
    DDFName 11  DefaultValue 12  Delete 13  Description 14  DFFormat 15  DFProperties 16  DFTitle 17  DFType 18
    Dynamic 19  Exec 1A  float 1B  Format 1C  Get 1D  int 1E  Man 1F  MgmtTree 20  MIME 21  Mod 22  Name 23  Node 24
    node 25  NodeName 26  null 27  Occurrence 28  One 29  OneOrMore 2A  OneOrN 2B  Path 2C  Permanent 2D  Replace 2E
    RTProperties 2F  Scope 30  Size 31  time 32  Title 33  TStamp 34  Type 35  Value 36  VerDTD 37  VerNo 38  xml 39
    ZeroOrMore 3A  ZeroOrN 3B  ZeroOrOne 3C
""")

SYNCML_NAMESPACE = "SYNCML:SYNCML1.2"
METINF_NAMESPACE = "syncml:metinf"
DDF_NAMESPACE = "syncml:dmddf1.2"
