# SPDX-License-Identifier: Apache-2.0
"""WebSocket frames, right and wrong, of two raw ends: the same bytes and ends directly and through
the tunnel, which has no opinion about any of it."""

import socket
import struct

import pytest

from harness import HANG, MIB, SANITIZED, duet as duets
from harness.duet import compare, frame
from harness.ws import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT

KEY = b"\x37\xfa\x21\x3d"


@pytest.fixture(name="stage", scope="module")
def _stage(session_start, edge):
    stage = session_start.keep(duets.Stage())
    client = session_start.client(edge, stage, "--quiet", subdomain="raw")
    stage.through(edge, "raw")
    stage.watched = [edge, client]
    yield stage
    assert client.proc.alive() and edge.proc.alive()


def pattern(size):
    block = bytes((i * 7 + 3) & 255 for i in range(65536))
    return (block * (size // 65536 + 1))[:size]


def both_say(opcode, payload=b"", **how):
    """Either end says this frame, as its role masks it, with a plain one before and behind."""
    def play(duet):
        for end in duet.ends:
            end.frame(TEXT, b"before")
            end.frame(opcode, payload, **how)
            end.frame(TEXT, b"behind")
        duet.settle()
    return play


# -- lengths ---------------------------------------------------------------------------------------

LENGTHS = [0, 1, 2, 3, 4, 124, 125, 126, 127, 128, 255, 256, 257, 4095, 4096, 16383, 16384, 16385,
           32767, 32768, 65514, 65534, 65535, 65536, 65537, 131071, 131072, 131073, 262143, 262144,
           262145, MIB - 1, MIB, MIB + 1, 4 * MIB]


@pytest.mark.parametrize("size", LENGTHS)
def test_lengths(stage, size):
    """Each end says one such message and then a short one."""
    compare(stage, both_say(BINARY, pattern(size)))


@pytest.mark.parametrize("size", [16 * MIB - 1, 16 * MIB])
@pytest.mark.parametrize("who", ["visitor", "upstream"])
def test_great_lengths(stage, size, who):
    def play(duet):
        end = duet.visitor if who == "visitor" else duet.upstream
        end.frame(BINARY, pattern(size))
        end.frame(TEXT, b"behind")
        duet.settle()
    compare(stage, play)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_texts_of_these_lengths(stage, size):
    compare(stage, both_say(TEXT, b"a" * size))


@pytest.mark.parametrize("size, form", [(0, 16), (5, 16), (125, 16), (0, 64), (125, 64), (126, 64),
                                        (65535, 64)])
def test_lengths_in_too_long_a_form(stage, size, form):
    compare(stage, both_say(BINARY, pattern(size), form=form))


@pytest.mark.parametrize("claim", [1 << 20, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, 1 << 63,
                                   (1 << 64) - 1])
def test_lengths_that_are_only_claimed(stage, claim):
    def play(duet):
        for end in duet.ends:
            end.frame(BINARY, b"not so much", form=64, claim=claim)
        duet.settle()
        duet.visitor.fin()
        duet.ended(duet.upstream, "fin")
        duet.upstream.fin()
        duet.ended(duet.visitor, "fin")
    compare(stage, play)


# -- fragments -------------------------------------------------------------------------------------

def fragments(*pieces):
    """Frames (opcode, payload, fin) said by both ends."""
    def play(duet):
        for end in duet.ends:
            for opcode, payload, fin in pieces:
                end.frame(opcode, payload, fin=fin)
        duet.settle()
    return play


LAST, MORE = True, False


@pytest.mark.parametrize("pieces", [
    pytest.param([(TEXT, b"one", MORE), (CONTINUATION, b"two", LAST)], id="two"),
    pytest.param([(TEXT, b"", MORE), (CONTINUATION, b"", LAST)], id="two-empty"),
    pytest.param([(BINARY, b"", MORE), (CONTINUATION, b"x", LAST)], id="first-empty"),
    pytest.param([(BINARY, b"x", MORE), (CONTINUATION, b"", LAST)], id="last-empty"),
    pytest.param([(BINARY, b"x", MORE)] + [(CONTINUATION, b"", MORE)] * 100 +
                 [(CONTINUATION, b"y", LAST)], id="hundred-empty"),
    pytest.param([(BINARY, b"a", MORE)] + [(CONTINUATION, b"b", MORE)] * 2000 +
                 [(CONTINUATION, b"c", LAST)], id="two-thousand"),
    pytest.param([(BINARY, bytes(65535), MORE), (CONTINUATION, bytes(65536), MORE),
                  (CONTINUATION, bytes(65537), LAST)], id="great-ones"),
    pytest.param([(BINARY, bytes(n), MORE) if n == 1 else (CONTINUATION, bytes(n), n == 255)
                  for n in range(1, 256)], id="growing"),
    pytest.param([(TEXT, b"one", MORE), (PING, b"p", LAST), (CONTINUATION, b"two", LAST)],
                 id="ping-between"),
    pytest.param([(TEXT, b"one", MORE), (PONG, b"", LAST), (CONTINUATION, b"two", LAST)],
                 id="pong-between"),
    pytest.param([(TEXT, b"1", MORE)] +
                 [(PING, b"p" * 125, LAST), (CONTINUATION, b"2", MORE), (PONG, b"q", LAST)] * 50 +
                 [(CONTINUATION, b"3", LAST)], id="control-between-all"),
    pytest.param([(TEXT, b"one", MORE), (CLOSE, b"\x03\xe8", LAST),
                  (CONTINUATION, b"two", LAST)], id="close-between"),
    pytest.param([(CONTINUATION, b"of nothing", LAST)], id="continuation-of-nothing"),
    pytest.param([(CONTINUATION, b"of nothing", MORE)], id="open-continuation-of-nothing"),
    pytest.param([(TEXT, b"one", MORE), (TEXT, b"two", LAST)], id="text-inside"),
    pytest.param([(TEXT, b"one", MORE), (BINARY, b"two", LAST)], id="binary-inside"),
    pytest.param([(TEXT, b"one", LAST), (CONTINUATION, b"two", LAST)], id="after-the-last"),
    pytest.param([(PING, b"half", MORE), (CONTINUATION, b"ping", LAST)], id="fragmented-ping"),
    pytest.param([(CLOSE, b"\x03", MORE), (CONTINUATION, b"\xe8", LAST)], id="fragmented-close"),
    pytest.param([(TEXT, b"never ended", MORE)], id="never-ended"),
])
def test_fragments(stage, pieces):
    compare(stage, fragments(*pieces))


# -- control frames --------------------------------------------------------------------------------

@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
@pytest.mark.parametrize("size", [0, 1, 2, 124, 125, 126, 127, 65536])
def test_control_frames(stage, opcode, size):
    """Those above 125 bytes must not be, which is for the ends to say."""
    compare(stage, both_say(opcode, pattern(size)))


CODES = [0, 1, 999, *range(1000, 1016), 1016, 1100, 1999, 2000, 2999, 3000, 3001, 3999, 4000, 4001,
         4999, 5000, 32767, 32768, 65535]


@pytest.mark.parametrize("first", ["visitor", "upstream"])
@pytest.mark.parametrize("code", CODES)
def test_close_codes(stage, code, first):
    """A closing handshake with each code, and the ends after it."""
    def play(duet):
        one, other = duet.ends if first == "visitor" else duet.ends[::-1]
        one.frame(CLOSE, struct.pack("!H", code) + b"why")
        duet.settle()
        other.frame(CLOSE, struct.pack("!H", code))
        duet.settle()
        duet.upstream.fin()
        duet.ended(duet.visitor, "fin")
        duet.visitor.fin()
        duet.ended(duet.upstream, "fin")
    compare(stage, play)


@pytest.mark.parametrize("payload", [
    b"", b"\x03", b"\x03\xe8" + b"r" * 121, b"\x03\xe8" + b"r" * 122,
    b"\x03\xe8\xff\xfe", b"\x03\xe8\xc3", b"\x03\xe8" + "grüße ☃".encode(), b"\x03\xe8\0\0"])
def test_close_reasons(stage, payload):
    compare(stage, both_say(CLOSE, payload))


def test_frames_after_a_close(stage):
    compare(stage, fragments((CLOSE, b"\x03\xe8", LAST), (TEXT, b"after", LAST), (PING, b"", LAST),
                             (CLOSE, b"\x03\xe9", LAST), (CLOSE, b"", LAST)))


# -- reserved bits, opcodes, masks, text -----------------------------------------------------------

@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [CONTINUATION, TEXT, PING])
def test_reserved_bits(stage, rsv, opcode):
    compare(stage, both_say(opcode, b"reserved", rsv=rsv))


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("size", [0, 5, 200])
def test_opcodes_that_are_none(stage, opcode, size):
    compare(stage, both_say(opcode, pattern(size)))


@pytest.mark.parametrize("key", [None, bytes(4), b"\xff" * 4, KEY])
@pytest.mark.parametrize("opcode", [TEXT, PING, CLOSE])
def test_masks_whoever_should_have_one(stage, key, opcode):
    compare(stage, both_say(opcode, b"\x03\xe8masked or not", key=key))


@pytest.mark.parametrize("text", [
    b"\xff", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\x80", b"ok\xbfok",
    b"\xef\xbb\xbf", b"\0", b"\xef\xbf\xbf", "\U0010ffff".encode()])
def test_text_that_is_none(stage, text):
    compare(stage, both_say(TEXT, text))


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_characters_cut_by_fragments(stage, cut):
    char = "\U0001f600".encode()
    compare(stage, fragments((TEXT, char[:cut], MORE), (CONTINUATION, char[cut:], LAST)))


# -- how the bytes come ----------------------------------------------------------------------------

def conversation(end):
    """Some of everything, as that end says it."""
    how = {"key": KEY} if end.name == "visitor" else {}
    return b"".join([
        frame(TEXT, b"hello", **how), frame(BINARY, pattern(300), fin=False, **how),
        frame(PING, b"still there", **how), frame(CONTINUATION, b"", **how),
        frame(PONG, b"", **how), frame(BINARY, b"odd", form=64, **how),
        frame(CLOSE, b"\x03\xe8bye", **how)])


def test_one_byte_at_a_time(stage):
    def play(duet):
        for pair in zip(*(conversation(end) for end in duet.ends)):
            for end, byte in zip(duet.ends, pair):
                end.say(bytes([byte]))
            duet.settle()
    compare(stage, play)


@pytest.mark.parametrize("size", [2, 3, 5, 7, 13, 61])
def test_pieces_of_this_size(stage, size):
    def play(duet):
        words = [conversation(end) for end in duet.ends]
        for at in range(0, max(map(len, words)), size):
            for end, said in zip(duet.ends, words):
                end.say(said[at:at + size])
            duet.turn(0.001)
        duet.settle()
    compare(stage, play)


@pytest.mark.parametrize("cut", range(1, 15))
def test_a_frame_cut_in_its_head(stage, cut):
    """The fourteen bytes before a payload, in two writes."""
    def play(duet):
        for end in duet.ends:
            raw = frame(BINARY, pattern(70000), key=KEY)
            end.say(raw[:cut])
            duet.settle()
            end.say(raw[cut:])
            duet.settle()
    compare(stage, play)


@pytest.mark.parametrize("early, prompt", [
    (b"", frame(TEXT, b"prompt")), (frame(TEXT, b"early", key=KEY), b""),
    (frame(TEXT, b"early", key=KEY), frame(TEXT, b"prompt")),
    (frame(BINARY, bytes(15000), key=KEY), frame(BINARY, bytes(60000))),
    (b"\r\n\r\n", b"\r\n"), (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
    (frame(CLOSE, b"", key=KEY), frame(CLOSE))])
def test_frames_in_the_segment_of_the_head(stage, early, prompt):
    def play(duet):
        duet.settle()
        for end in duet.ends:
            end.say(conversation(end))
        duet.settle()
    compare(stage, play, early=early, prompt=prompt)


def test_more_before_the_101_than_is_read_ahead(stage):
    """The visitor does not wait for the 101; what it says meanwhile is held back, not lost."""
    early = b"".join(frame(BINARY, pattern(10000), key=KEY) for _ in range(50))
    for way in ("direct", "tunnel"):
        visitor = stage.dial(way)
        visitor.send(duets.ASK.format(host=stage.host(way), token="websocket"))
        duet = duets.Duet(visitor, stage.accept())
        duet.visitor.say(early)
        for _ in range(10):
            duet.turn(0.01)
        duet.until(lambda d=duet: b"\r\n\r\n" in d.upstream.heard, "the head arrived")
        head = duet.upstream.heard.index(b"\r\n\r\n") + 4
        if way == "tunnel":
            assert len(duet.upstream.heard) == head, "bytes of the new protocol came before the 101"
        duet.upstream.say(duets.SWITCH.format(token="websocket").encode())
        duet.until(lambda d=duet, n=head: len(d.upstream.heard) == n + len(early), "all arrived")
        assert duet.upstream.heard[head:] == early
        duet.close()


@pytest.mark.parametrize("token", ["websocket", "tcp", "SPDY/3.1", "foo/2, bar", "x"])
@pytest.mark.parametrize("raw", [
    bytes(range(256)) * 4, b"\r\n\r\n", bytes(1000), b"HTTP/1.1 400 Bad\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /__tunnel__/health/live HTTP/1.1\r\n\r\n"])
def test_bytes_of_any_protocol(stage, token, raw):
    def play(duet):
        for end in duet.ends:
            end.say(raw)
            duet.settle()
    compare(stage, play, token=token)


# -- much ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("who", ["visitor", "upstream"])
def test_a_flood_of_pings(stage, who):
    """Twenty thousand pings, each answered, and a message at the end."""
    count = 20000

    def play(duet):
        one, other = duet.ends if who == "visitor" else duet.ends[::-1]
        key = {"key": KEY} if who == "visitor" else {"key": None}
        back = {"key": None} if who == "visitor" else {"key": KEY}
        pings = b"".join(frame(PING, b"%05d" % n, **key) for n in range(count))
        one.say(pings)
        while len(other.words) < count * len(frame(PONG, b"12345", **back)):
            duet.turn()
            done = len(other.words) // len(frame(PONG, b"12345", **back))
            whole = len(other.heard) // len(frame(PING, b"12345", **key))
            other.say(b"".join(frame(PONG, b"%05d" % n, **back) for n in range(done, whole)))
        one.frame(TEXT, b"and now?")
        duet.settle()
    compare(stage, play)


@pytest.mark.parametrize("who", ["visitor", "upstream"])
def test_a_slow_reader(stage, who):
    """It takes nothing while the other says 64 MiB: that is held back, by everyone a little, until
    it reads; the other direction goes on."""
    size = 64 * MIB

    def play(duet):
        slow, fast = duet.ends if who == "visitor" else duet.ends[::-1]
        slow.deaf = True
        before = [(p.proc, p.proc.rss()) for p in stage.watched]
        fast.say(frame(BINARY, bytes(size)))
        quiet = 0
        while quiet < 20:
            said = fast.said
            duet.turn(0.02)
            quiet = quiet + 1 if fast.said == said else 0
        assert fast.said < size, "it was all taken from the fast one"
        for proc, least in before:
            assert SANITIZED or proc.rss() < least + 8 * MIB, f"{proc.name} holds it"
        for _ in range(10):
            slow.frame(PING, b"I live")
        duet.until(lambda: len(fast.heard) == len(slow.words), "the slow one is heard")
        slow.deaf = False
        duet.settle()
    compare(stage, play)


def test_visitors_do_not_wait_for_a_slow_one(stage):
    slow = duets.begin(stage, "tunnel", receive_buffer=4096)
    slow.visitor.deaf = True
    slow.upstream.say(bytes(32 * MIB))
    for _ in range(50):
        slow.turn(0.005)
    compare(stage, both_say(BINARY, pattern(MIB)))
    slow.visitor.deaf = False
    slow.settle()
    slow.close()


# -- ends ------------------------------------------------------------------------------------------

def sides(duet, first):
    return duet.ends if first == "visitor" else duet.ends[::-1]


BOTH = pytest.mark.parametrize("who", ["visitor", "upstream"])


@BOTH
def test_half_close(stage, who):
    """One end has said all; the other one goes on for as long as it likes."""
    def play(duet):
        one, other = sides(duet, who)
        one.frame(TEXT, b"that is all")
        duet.settle()
        one.fin()
        duet.ended(other, "fin")
        for _ in range(20):
            other.frame(BINARY, pattern(30000))
            duet.settle()
        other.fin()
        duet.ended(one, "fin")
    compare(stage, play)


@BOTH
def test_an_end_right_behind_much(stage, who):
    """No byte of it is lost to the end behind it."""
    def play(duet):
        one, other = sides(duet, who)
        one.frame(BINARY, pattern(3 * MIB))
        duet.until(lambda: not one.out, "all said")
        one.close()
        duet.ended(other, "fin")
        assert other.heard == one.words
        other.fin()
    compare(stage, play)


@BOTH
def test_it_dies_without_a_close(stage, who):
    def play(duet):
        one, other = sides(duet, who)
        other.frame(TEXT, b"are you there?")
        duet.settle()
        one.frame(TEXT, b"yes, and now")
        duet.settle()
        one.reset()
        duet.ended(other, "reset")
    compare(stage, play)


@BOTH
@pytest.mark.parametrize("size", [10, 60000])
def test_its_last_words(stage, who, size):
    """What it says just before it dies is heard."""
    def play(duet):
        one, other = sides(duet, who)
        one.say(bytes(size))
        duet.until(lambda: not one.out, "all said")
        one.reset()
        duet.ended(other, "reset")
        assert len(other.heard) == size
    compare(stage, play)


@BOTH
@pytest.mark.parametrize("cut", [1, 3, 9, 13, 14, 1000])
def test_it_dies_inside_a_frame(stage, who, cut):
    def play(duet):
        one, other = sides(duet, who)
        one.say(frame(BINARY, bytes(100000), key=KEY)[:cut])
        duet.settle()
        one.reset()
        duet.ended(other, "reset")
    compare(stage, play)


@BOTH
def test_it_dies_with_something_unread(stage, who):
    """A process that ends with input it has not read resets its connection."""
    def play(duet):
        one, other = sides(duet, who)
        one.deaf = True
        other.frame(TEXT, b"read this")
        duet.until(lambda: not other.out, "said")
        one.sock.settimeout(HANG)
        assert one.sock.recv(1, socket.MSG_PEEK)
        one.close()
        duet.ended(other, "reset")
    compare(stage, play)


@BOTH
def test_it_dies_after_its_end(stage, who):
    """Half closed first, then gone, while the other one still speaks."""
    def play(duet):
        one, other = sides(duet, who)
        one.fin()
        duet.ended(other, "fin")
        other.frame(TEXT, b"go on")
        duet.settle()
        one.reset()
        refused = []

        def speak():
            try:
                other.sock.send(b"x")
            except ConnectionError as error:
                refused.append(error)
            return refused
        duet.until(speak, "the other one learns of it")
    compare(stage, play)


@BOTH
def test_it_leaves_at_once(stage, who):
    def play(duet):
        one, other = sides(duet, who)
        one.close()
        duet.ended(other, "fin")
    compare(stage, play)


def test_both_leave_at_once(stage):
    def play(duet):
        for end in duet.ends:
            end.frame(CLOSE, b"\x03\xe9")
            duet.until(lambda e=end: not e.out, "said")
            end.fin()
        for end in duet.ends:
            duet.ended(end, "fin")
    compare(stage, play)
