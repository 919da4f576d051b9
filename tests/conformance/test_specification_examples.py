"""The message examples of the specifications, as they stand there: comments, line breaks and odd orders included.

OMA-TS-DM_Protocol 1.2.1 (sections 8 to 11), OMA-TS-DM_RepPro 1.2.1, OMA-TS-DM_Security 1.2.1. Where an example has a
comment in place of a value, there is a value here.
"""

from __future__ import annotations

from base64 import b64decode

import pytest

from dom0_agent.omadm import auth
from dom0_agent.omadm import commands as c
from dom0_agent.omadm.alerts import normal_alert_type
from dom0_agent.omadm.auth import AuthScheme, Credentials, NonceRole
from dom0_agent.omadm.element import NAMES
from dom0_agent.omadm.interaction import Answer, Outcome, Question
from dom0_agent.omadm.reader import body_element_from
from dom0_agent.omadm.server_auth import DeviceCredentials
from dom0_agent.omadm.xml import XmlCodec, parse_untrusted
from tests.conformance.dm_bytes import Board, Desk, codes, texts, to_octets
from tests.conformance.rules import cases, rule
from tests.unit.omadm.dm_pair import Application, LeafTree

SERVER, DEVICE = "http://www.syncml.org/mgmt-server", "IMEI:493005100592800"
BRUCE = Credentials(AuthScheme.BASIC, "Bruce2", "OhBehave")


def header(target: str, source: str, msg_id: int, extra: str = "") -> str:
    return f"""<SyncHdr>
    <VerDTD>1.2</VerDTD>
    <VerProto>DM/1.2</VerProto>
    <SessionID>1</SessionID>
    <MsgID>{msg_id}</MsgID>
    <Target>
        <LocURI>{target}</LocURI>
    </Target>
    <Source>
        <LocURI>{source}</LocURI>
    </Source>
    {extra}
  </SyncHdr>"""


CRED = """<Cred> <!-- Client credentials are mandatory if the transport layer is not providing authentication.-->
      <Meta>
        <Type xmlns="syncml:metinf">syncml:auth-basic</Type>
        <Format xmlns='syncml:metinf'>b64</Format>
      </Meta>
      <Data>QnJ1Y2UyOk9oQmVoYXZl</Data> <!-- base64 formatting of userid:password -->
    </Cred>"""


def device_info(name: str, value: str) -> str:
    return f"""<Item>
      <Source><LocURI>./DevInfo/{name}</LocURI></Source>
      <Meta>
        <Format xmlns='syncml:metinf'>chr</Format>
        <Type xmlns='syncml:metinf'>text/plain</Type>
      </Meta>
      <Data>{value}</Data>
    </Item>"""


INFO = {
    "DevId": DEVICE,
    "Man": "Device Factory, Inc.",
    "Mod": "SmartPhone2000",
    "DmV": "1.0.0.1",
    "Lang": "en-US",
}
META = "<Meta> <!-- Maximum message size for the client -->\n<MaxMsgSize xmlns='syncml:metinf'>5000</MaxMsgSize></Meta>"

#: Protocol 11.1: one step, initiated by the server
PACKAGE_1 = f"""<SyncML xmlns='SYNCML:SYNCML1.2'>
  {header(SERVER, DEVICE, 1, CRED + META)}
  <SyncBody>
  <Alert>
    <CmdID>1</CmdID>
    <Data>1200</Data> <!-- Server-initiated session -->
  </Alert>
  <Replace>
    <CmdID>3</CmdID>
    {"".join(device_info(name, value) for name, value in INFO.items())}
  </Replace>
  <Final/>
  </SyncBody>
</SyncML>"""

STATUSES = """<Status>
       <MsgRef>1</MsgRef><CmdRef>0</CmdRef>
       <Cmd>SyncHdr</Cmd>
       <CmdID>6</CmdID>
       <TargetRef>http://www.syncml.org/mgmt-server</TargetRef>
       <SourceRef>IMEI:493005100592800</SourceRef>
       <!-- Authenticated for the session -->
       <Data>212</Data>
    </Status>
    <Status>
      <MsgRef>1</MsgRef><CmdRef>1</CmdRef>
      <CmdID>7</CmdID>
      <Cmd>Alert</Cmd>
      <Data>200</Data><!-- OK -->
    </Status>
    <Status>
      <MsgRef>1</MsgRef><CmdRef>3</CmdRef>
      <CmdID>8</CmdID>
      <Cmd>Replace</Cmd>
      <Data>200</Data><!-- OK -->
    </Status>"""

PACKAGE_2 = f"""<SyncML xmlns='SYNCML:SYNCML1.2'>
  {header(DEVICE, SERVER, 1, CRED)}
  <SyncBody>
    {STATUSES}
    <Sequence>
      <CmdID>1</CmdID>
      <Alert>
        <CmdID>2</CmdID>
        <Data>1101</Data> <!-- User confirmation required -->
        <Item></Item>
        <Item>
          <Data>Do you want to add the CNN access point?</Data>
        </Item>
      </Alert>
      <Replace>
        <CmdID>4</CmdID>
        <Meta>
          <Format xmlns="syncml:metinf">b64</Format>
          <Type xmlns="syncml:metinf">
                application/vnd.wap.connectivity-wbxml </Type>
         </Meta>
         <Item>
            <!-- CNN WAP settings object in the settings -->
            <Target>
            <LocURI>./settings/wap_settings/CNN</LocURI>
            </Target>
            <Data>AwtqAEUD</Data> <!-- Base64-coded WAP connectivity document -->
         </Item>
       </Replace>
     </Sequence>
     <Final/>
  </SyncBody>
</SyncML>"""

#: Protocol 11.2: two steps; the Status of SyncHdr in packages 3 and 4 has no CmdRef
TWO_STEPS_2 = f"""<SyncML xmlns='SYNCML:SYNCML1.2'>
  {header(DEVICE, SERVER, 1, CRED)}
<SyncBody>
  {STATUSES}
  <Alert>
    <CmdID>2</CmdID>
    <Data>1100</Data> <!-- User displayable notification -->
    <Item></Item>
    <Item>
      <Data>Your antivirus software is being updated</Data>
    </Item>
    </Alert>
    <!-- Let's get the installed antivirus definition version number now -->
    <Get>
       <CmdID>4</CmdID>
       <Item>
       <Target>
           <LocURI>./antivirus_data/version</LocURI>
       </Target>
       </Item>
    </Get>
    <Final/>
  </SyncBody>
</SyncML>"""

TWO_STEPS_3 = f"""<SyncML xmlns='SYNCML:SYNCML1.2'>
  {header(SERVER, DEVICE, 2)}
  <SyncBody>
    <Status>
      <MsgRef>1</MsgRef>
      <CmdID>1</CmdID>
      <Cmd>SyncHdr</Cmd>
      <Data>212</Data>
    </Status>
    <Status>
      <MsgRef>1</MsgRef>
      <CmdRef>2</CmdRef>
      <CmdID>2</CmdID>
      <Cmd>Alert</Cmd>
      <Data>200</Data><!-- User notification OK -->
    </Status>
    <Status>
      <MsgRef>1</MsgRef>
      <CmdRef>4</CmdRef>
      <CmdID>4</CmdID>
      <Cmd>Get</Cmd>
      <TargetRef>./antivirus_data/version</TargetRef>
      <Data>200</Data><!-- Get OK -->
    </Status>
    <!-- Results for the Get: antivirus version number -->
    <Results>
      <MsgRef>1</MsgRef><CmdRef>4</CmdRef>
      <CmdID>3</CmdID>
    <Item>
      <Source>
      <LocURI>./antivirus_data/version</LocURI>
      </Source>
      <Data>antivirus-inc/20010522b/5</Data>
    </Item>
    </Results>
    <Final/>
  </SyncBody>
</SyncML>"""

TWO_STEPS_4 = f"""<SyncML xmlns='SYNCML:SYNCML1.2'>
  {header(DEVICE, SERVER, 2)}
<SyncBody>
     <Status>
       <MsgRef>2</MsgRef>
       <CmdID>1</CmdID>
       <Cmd>SyncHdr</Cmd>
       <Data>212</Data>
     </Status>
     <!-- Send now antivirus updates -->
     <Replace>
       <CmdID>2</CmdID>
       <Meta>
          <Format xmlns="syncml:metinf">b64</Format>
          <Type xmlns="syncml:metinf">
application/antivirus-inc.virusdef
          </Type>
       </Meta>
       <Item>
        <Target>
           <LocURI>./antivirus_data</LocURI>
        </Target>
        <Data>AAEC</Data> <!-- Base64-coded antivirus file -->
       </Item>
      </Replace>
     <Final/>
  </SyncBody>
</SyncML>"""


class User:
    """Says yes, and remembers what it was asked."""

    def __init__(self, answer: Answer = Answer(Outcome.ANSWERED)) -> None:  # noqa: B008 - frozen
        self.asked: list[Question] = []
        self._answer = answer

    def ask(self, question: Question) -> Answer:
        self.asked.append(question)
        return self._answer


def example_board(syntax: str, tree: LeafTree, user: User) -> Board:
    """The device of the examples: session 1, basic credentials both ways."""
    board = Board(syntax, tree, client=BRUCE, server=BRUCE, ui=user)
    board.session._session_id = "1"
    board.start()
    return board


# ---- Protocol 11: sessions ---------------------------------------------------------------------------------------


@rule("Examples: one-step protocol", "package 1 is understood by the server")
def test_package_1(syntax: str) -> None:
    desk = Desk(syntax, known=DeviceCredentials(BRUCE, Credentials()))
    desk.session.session_id, desk.session.device_id = "1", DEVICE
    answer = desk.receive(to_octets(PACKAGE_1, syntax))
    assert codes(answer) == [("SyncHdr", "212"), ("Alert", "200"), ("Replace", "200")]
    assert desk.application.info == {f"./DevInfo/{name}": value for name, value in INFO.items()}
    assert [alert.code for alert in desk.application.alerts] == [1200]


@rule("Examples: one-step protocol", "package 2 is answered as package 3 of the example")
def test_package_2(syntax: str) -> None:
    tree, user = LeafTree({"./settings/wap_settings/CNN": ""}), User()
    board = example_board(syntax, tree, user)
    answer = board.receive(to_octets(PACKAGE_2, syntax))
    assert answer is not None
    assert codes(answer) == [("SyncHdr", "212"), ("Sequence", "200"), ("Alert", "200"), ("Replace", "200")]
    assert texts(answer, "SyncBody/Status/CmdRef") == ["0", "1", "2", "4"]
    assert texts(answer, "SyncBody/Status/MsgRef") == ["1"] * 4
    assert texts(answer, "SyncBody/Status[Cmd='Replace']/TargetRef") == ["./settings/wap_settings/CNN"]
    assert user.asked[0].text == "Do you want to add the CNN access point?"
    value = tree.leaves["./settings/wap_settings/CNN"]
    assert (value.data, value.format, value.type) == ("AwtqAEUD", "b64", "application/vnd.wap.connectivity-wbxml")


@rule("Examples: one-step protocol", "the empty package 4 ends the session")
def test_package_4(syntax: str) -> None:
    board = example_board(syntax, LeafTree({"./settings/wap_settings/CNN": ""}), User())
    board.receive(to_octets(PACKAGE_2, syntax))
    status = "<Status><MsgRef>2</MsgRef><CmdID>1</CmdID><CmdRef>0</CmdRef><Cmd>SyncHdr</Cmd><Data>200</Data></Status>"
    last = f"<SyncML xmlns='SYNCML:SYNCML1.2'>{header(DEVICE, SERVER, 2)}<SyncBody>{status}<Final/></SyncBody></SyncML>"
    assert board.receive(to_octets(last, syntax)) is None
    assert board.session.outcome is not None
    assert board.session.outcome.ok


@rule("Examples: two-step protocol", "packages 2 and 4 are executed by the client")
def test_two_steps_at_the_client(syntax: str) -> None:
    tree = LeafTree({"./antivirus_data/version": "antivirus-inc/20010522b/5", "./antivirus_data": ""})
    user = User()
    board = example_board(syntax, tree, user)
    answer = board.receive(to_octets(TWO_STEPS_2, syntax))
    assert answer is not None
    assert codes(answer) == [("SyncHdr", "212"), ("Alert", "200"), ("Get", "200")]
    assert texts(answer, "SyncBody/Results/Item/Data") == ["antivirus-inc/20010522b/5"]
    assert user.asked[0].text == "Your antivirus software is being updated"
    answer = board.receive(to_octets(TWO_STEPS_4, syntax))
    assert answer is not None
    assert codes(answer)[1:] == [("Replace", "200")]
    assert tree.leaves["./antivirus_data"].type == "application/antivirus-inc.virusdef"


@rule(
    "Examples: two-step protocol", "package 3, with a Status of SyncHdr that has no CmdRef, is understood by the server"
)
def test_two_steps_at_the_server(syntax: str) -> None:
    alert = c.Alert(code=1100, items=(c.Item(data=""), c.Item(data="Your antivirus software is being updated")))
    get = c.Get(items=(c.Item("./antivirus_data/version"),))
    desk = Desk(syntax, Application([alert, get]), known=DeviceCredentials(BRUCE, BRUCE))
    desk.session.session_id, desk.session.device_id = "1", DEVICE
    first = desk.receive(to_octets(PACKAGE_1, syntax))
    package_3 = TWO_STEPS_3
    for name, old in (("Alert", "2"), ("Get", "4")):
        new = texts(first, f"SyncBody/{name}/CmdID")[0]
        package_3 = package_3.replace(f"<CmdRef>{old}<", f"<CmdRef>~{new}<")
    second = desk.receive(to_octets(package_3.replace("~", ""), syntax))
    assert desk.application.codes == {"r1": 200, "r2": 200}
    assert desk.application.outcomes["r2"].results[0].data == "antivirus-inc/20010522b/5"
    assert second.find("SyncHdr/Cred") is None


# ---- Protocol 9: authentication ----------------------------------------------------------------------------------


@rule("Examples: authentication", "basic credentials after a challenge")
def test_basic_with_challenge(syntax: str) -> None:
    desk = Desk(syntax, known=DeviceCredentials(BRUCE, Credentials()))
    first = desk.open()
    assert codes(first)[0] == ("SyncHdr", "407")
    assert texts(first, "SyncBody/Status/Chal/Meta/Type") == ["syncml:auth-basic"]
    assert first.find("SyncBody/Status/Chal/Meta/NextNonce") is None
    again = desk.open(header=CRED)
    assert codes(again)[0] == ("SyncHdr", "212")
    assert texts(again, "SyncHdr/MsgID") == ["2"]


@rule("Examples: authentication", "MD5 credentials of Bruce2, and the next nonce in the 212")
def test_md5_with_challenge(syntax: str) -> None:
    board = Board(syntax, client=Credentials(AuthScheme.MD5, "Bruce2", "OhBehave"), client_nonce=b"Nonce")
    first = board.start()
    assert texts(first, "SyncHdr/Source/LocName") == ["Bruce2"]
    assert texts(first, "SyncHdr/Cred/Data") == ["Zz6EivR3yeaaENcRN6lpAQ=="]
    chal = """<Chal><Meta>
          <Type xmlns='syncml:metinf'>syncml:auth-md5</Type>
          <Format xmlns='syncml:metinf'>b64</Format>
          <NextNonce xmlns='syncml:metinf'>LG3iZQhhdmKNHg==</NextNonce>
          <!-- This nonce is used at the next session -->
        </Meta></Chal>"""
    status = (
        f"<Status><CmdID>1</CmdID><MsgRef>1</MsgRef><CmdRef>0</CmdRef><Cmd>SyncHdr</Cmd>{chal}<Data>212</Data></Status>"
    )
    assert board.say(status, accept=False) is None
    assert board.nonces.get("virmo-server", NonceRole.CLIENT) == b64decode("LG3iZQhhdmKNHg==")


@rule("Examples: authentication", "the x-syncml-hmac header of Robert Jordan is read")
def test_hmac_header() -> None:
    value = 'algorithm=MD5, username="Robert Jordan",\n mac=NTI2OTJhMDAwNjYxODkwYmQ3NWUxN2RhN2ZmYmJlMzk'
    found = auth.parse_hmac_header(value)
    assert (found.algorithm, found.username) == ("MD5", "Robert Jordan")
    assert found.mac == "NTI2OTJhMDAwNjYxODkwYmQ3NWUxN2RhN2ZmYmJlMzk"


# ---- single elements ---------------------------------------------------------------------------------------------

_STATUS = """<Status>
  <MsgRef>1</MsgRef>
  <CmdRef>2</CmdRef>
  <CmdID>1234</CmdID>
  <Cmd>Replace</Cmd>
  <TargetRef>./antivirus_data</TargetRef>
  <!-- OK, antivirus update loaded-->
  <Data>200</Data>
</Status>"""

_ADD = """<Add>
  <CmdID>2</CmdID>
  <Meta>
    <Format xmlns="syncml:metinf">b64</Format>
    <Type xmlns="syncml:metinf">
          application/antivirus-inc.virusdef
    </Type>
  </Meta>
  <Item>
  <Meta>
    <Size xmlns='syncml:metinf'>37214</Size>
  </Meta>
  <Target><LocURI>./antivirus_data</LocURI></Target>
  <Data>AAEC</Data>
  </Item>
</Add>"""

_VIRUSDEF = c.Meta("b64", "application/antivirus-inc.virusdef")


@cases(
    "Examples: elements",
    "xml,expected",
    [
        ("Status", _STATUS, c.Status("1234", 1, "2", "Replace", 200, ("./antivirus_data",))),
        (
            "Status with a challenge",
            """<Status>
  <MsgRef>0</MsgRef>
  <Cmd>SyncHdr</Cmd>
  <TargetRef>http://www.datamgr.org/servlet/manageit</TargetRef>
  <SourceRef>IMEI:001004FF1234567</SourceRef>
  <Chal>
    <Meta>
      <Type xmlns='syncml:metinf'>syncml:auth-md5</Type>
      <Format xmlns='syncml:metinf'>b64</Format>
      <NextNonce xmlns='syncml:metinf'>ZG9iZWhhdmUNCg==</NextNonce>
    </Meta>
  </Chal>
  <Data>401</Data>
</Status>""",
            c.Status(
                "",
                0,
                "0",
                "SyncHdr",
                401,
                ("http://www.datamgr.org/servlet/manageit",),
                ("IMEI:001004FF1234567",),
                chal=c.Chal(c.Meta("b64", "syncml:auth-md5", next_nonce="ZG9iZWhhdmUNCg==")),
            ),
        ),
        (
            "Status of a Copy",
            """<Status>
  <CmdID>4321</CmdID>
  <MsgRef>1</MsgRef>
  <CmdRef>1234</CmdRef>
  <Cmd>Copy</Cmd>
  <TargetRef>./DM/WAPSetting/1</TargetRef>
  <SourceRef>./Common/WAP/1</SourceRef>
  <Data>200</Data>
</Status>""",
            c.Status("4321", 1, "1234", "Copy", 200, ("./DM/WAPSetting/1",), ("./Common/WAP/1",)),
        ),
        (
            "Add with Meta at both levels",
            _ADD,
            c.Add("2", (c.Item("./antivirus_data", meta=c.Meta(size=37214), data="AAEC"),), _VIRUSDEF),
        ),
        (
            "Add of a first chunk, Size in the command's Meta",
            """<Add>
  <CmdID>15</CmdID>
  <Meta>
    <Type xmlns='syncml:metinf'>bin</Type>
    <Format xmlns='syncml:metinf'>b64</Format>
    <Size xmlns='syncml:metinf'>3000</Size>
  </Meta>
  <Item>
     <Target>
       <LocURI>./</LocURI>
     </Target>
     <Data>AAEC</Data>
     <MoreData/>
  </Item>
</Add>""",
            c.Add("15", (c.Item("./", data="AAEC", more_data=True),), c.Meta("b64", "bin", size=3000)),
        ),
        (
            "Exec",
            """<Exec>
  <CmdID>3</CmdID>
  <Item>
     <Target>
       <LocURI>./bin/shutdown</LocURI>
     </Target>
     <Data>argument</Data>
  </Item>
</Exec>""",
            c.Exec("3", (c.Item("./bin/shutdown", data="argument"),)),
        ),
        (
            "Replace",
            """<Replace>
  <CmdID>4</CmdID>
  <Item>
    <Target>
      <LocURI>./antivirus_data/version</LocURI>
    </Target>
    <Data>antivirus-inc/20020213a/1</Data>
  </Item>
</Replace>""",
            c.Replace("4", (c.Item("./antivirus_data/version", data="antivirus-inc/20020213a/1"),)),
        ),
        (
            "Results, CmdID behind MsgRef and CmdRef",
            """<Results>
  <MsgRef>1</MsgRef><CmdRef>4</CmdRef>
  <CmdID>3</CmdID>
  <Item>
    <Source>
    <LocURI>./antivirus_data/version</LocURI>
    </Source>
    <Data>antivirus-inc/20010522b/5</Data>
  </Item>
</Results>""",
            c.Results("3", 1, "4", (c.Item(source="./antivirus_data/version", data="antivirus-inc/20010522b/5"),)),
        ),
        (
            "an Alert",
            "<Alert><CmdID>2</CmdID><Data>1200</Data> <!-- Server-initiated session --></Alert>",
            c.Alert("2", 1200),
        ),
        (
            "a choice",
            """<Alert>
  <CmdID>2</CmdID>
  <Data>1103</Data>
  <Item><Data>MINDT=10</Data></Item>
  <Item>
    <Data>Select service to configure</Data>
  </Item>
  <Item>
     <Data>CNN</Data>
  </Item>
  <Item>
     <Data>Mobilbank</Data>
  </Item>
  <Item>
     <Data>Game Channel</Data>
  </Item>
</Alert>""",
            c.Alert(
                "2",
                1103,
                tuple(
                    c.Item(data=text)
                    for text in ("MINDT=10", "Select service to configure", "CNN", "Mobilbank", "Game Channel")
                ),
            ),
        ),
        (
            "Status of a multiple choice, without CmdID",
            """<Status>
  <MsgRef>1</MsgRef>
  <CmdRef>2</CmdRef>
  <Cmd>Alert</Cmd>
  <Data>200</Data> <!-- Successful, user selected an item -->
  <Item>
     <Data>3</Data>
  </Item>
  <Item>
    <Data>2</Data> <!-- User selected Mobilbank and Game Channel -->
  </Item>
</Status>""",
            c.Status("", 1, "2", "Alert", 200, items=(c.Item(data="3"), c.Item(data="2"))),
        ),
    ],
)
def test_elements(xml: str, expected: c.BodyElement) -> None:
    element = parse_untrusted(xml.encode())
    assert NAMES[element.tag] == expected.NAME
    assert body_element_from(element) == expected


@rule("Examples: generic alert", "the basic design of the message")
def test_generic_alert() -> None:
    xml = """<Alert>
  <CmdID>2</CmdID>
  <Data>1226</Data> <!-- Generic Alert -->
  <Correlator>abc123</Correlator>
  <Item>
    <Source><LocURI>./SyncML/Sample</LocURI></Source>
    <Meta>
      <Type xmlns="syncml:metinf"> Reversed-Domain-Name: org.domain.samplealert
      </Type>
      <Format xmlns="syncml:metinf">xml</Format>
      <Mark xmlns="syncml:metinf">critical</Mark> <!-- Optional -->
    </Meta>
    <Data>
       <!-- Client Alert Data Goes Here -->
    </Data>
  </Item>
</Alert>"""
    alert = body_element_from(parse_untrusted(xml.encode()))
    assert isinstance(alert, c.Alert)
    assert (alert.code, alert.correlator) == (1226, "abc123")
    meta = alert.items[0].meta
    assert meta == c.Meta("xml", "Reversed-Domain-Name: org.domain.samplealert", "critical")
    assert normal_alert_type(meta.type or "") == "org.domain.samplealert"


@rule("Examples: authentication", "the header of Bruce1 with RespURI and MaxMsgSize")
def test_header_of_bruce1() -> None:
    extra = """<RespURI>http://www.deviceman.org/servlet/manageit/bruce1?user=jsmith&amp;after=20000512T133000Z</RespURI>
    <Cred>
    <Meta>
      <Type xmlns="syncml:metinf">syncml:auth-md5</Type>
      <Format xmlns="syncml:metinf">b64</Format>
    </Meta>
    <Data>18EA3F......</Data>
          <!-- base64 formatting of MD-5 Digest -->
    </Cred>
    <Meta>
        <MaxMsgSize xmlns="syncml:metinf">5000</MaxMsgSize>
    </Meta>"""
    xml = f"<SyncML xmlns='SYNCML:SYNCML1.2'>{header(SERVER, DEVICE, 1, extra)}<SyncBody></SyncBody></SyncML>"
    found = XmlCodec().decode(xml.encode()).header
    assert found.resp_uri == "http://www.deviceman.org/servlet/manageit/bruce1?user=jsmith&after=20000512T133000Z"
    assert found.cred == c.Cred(c.Meta("b64", "syncml:auth-md5"), "18EA3F......")
    assert found.meta == c.Meta(max_msg_size=5000)


@pytest.mark.parametrize("answer", [Answer(Outcome.ANSWERED), Answer(Outcome.REJECTED)], ids=["yes", "no"])
@rule(
    "Examples: user interaction",
    "the confirmation of the CNN access point: 200 or 304, and 215 for the rest of the Sequence",
)
def test_confirmation(answer: Answer, syntax: str) -> None:
    tree = LeafTree({"./settings/wap_settings/CNN": ""})
    root = example_board(syntax, tree, User(answer)).receive(to_octets(PACKAGE_2, syntax))
    assert root is not None
    expected = ["200", "200"] if answer.outcome is Outcome.ANSWERED else ["304", "215"]
    assert [code for _, code in codes(root)[2:]] == expected
