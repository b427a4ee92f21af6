"""
Character sets and patterns of RFC 9110 and RFC 9112, each under its rule.

Ours is the strict reading: no bare CR or LF, no obs-fold, no blank before the colon. Every repetition is possessive
(`*+`), so no input can make a pattern backtrack: each match is linear in its input.
"""

from __future__ import annotations

import re
from typing import Final

# RFC 9110 section 5.6.2: tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|"
#   / "~" / DIGIT / ALPHA
TCHAR: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

# RFC 9110 section 5.5: field-vchar = VCHAR / obs-text; blanks and tabs between them. NUL, CR, LF and every other
# control character are refused.
FIELD_OCTET: Final = rb"[\t\x20-\x7e\x80-\xff]"

# RFC 9112 section 3.2: request-target is visible ASCII without blanks. "#" never appears in one (a fragment is not
# sent), and octets above 0x7e must be percent-encoded (RFC 3986 section 2).
TARGET_OCTET: Final = rb"[\x21\x22\x24-\x7e]"

# RFC 9112 section 5: field-line = field-name ":" OWS field-value OWS
FIELD_LINE: Final = TCHAR + rb"++:" + FIELD_OCTET + rb"*+\r\n"

# RFC 9112 section 3: request-line = method SP request-target SP HTTP-version; then field lines, then an empty line.
# Groups: method, target, major digit, minor digit.
REQUEST_HEAD: Final = re.compile(
    rb"(" + TCHAR + rb"{1,32}+) (" + TARGET_OCTET + rb"++) HTTP/([0-9])\.([0-9])\r\n(?:" + FIELD_LINE + rb")*+\r\n"
)
REQUEST_LINE: Final = re.compile(rb"(" + TCHAR + rb"{1,32}+) (" + TARGET_OCTET + rb"++) HTTP/([0-9])\.([0-9])\r\n")

# As much of a method as has arrived, then its blank.
METHOD_SO_FAR: Final = re.compile(TCHAR + rb"{1,32}+(?: |\Z)")

# RFC 9112 section 2.2: empty lines before a request line, which a server ignores.
EMPTY_LINES: Final = re.compile(rb"\A(?:\r\n)++")

# RFC 9112 section 4: status-line = HTTP-version SP status-code SP [ reason-phrase ]. Deviation: the blank after the
# code may be missing, since some servers send none when the phrase is empty.
# Groups: minor digit, code, reason phrase with its blank.
RESPONSE_HEAD: Final = re.compile(
    rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])((?: " + FIELD_OCTET + rb"*+)?)\r\n(?:" + FIELD_LINE + rb")*+\r\n"
)

FIELD_SECTION: Final = re.compile(rb"(?:" + FIELD_LINE + rb")*")

TOKEN: Final = re.compile(TCHAR + rb"++")

# RFC 9110 section 8.6: Content-Length = 1*DIGIT. More than 18 digits (an exabyte) is refused, so that no peer's
# 64-bit arithmetic can wrap around where ours does not.
CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,18}")

# RFC 9110 section 7.2: Host = uri-host [ ":" port ]; IPv6 in brackets. Registered names may hold sub-delims and
# percent-encodings (RFC 3986 section 3.2.2), never a user part, path or blank; RFC 9110 section 4.2.1: it is not empty.
_PORT: Final = rb"(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|0?[0-9]{0,4})"
_NAMED: Final = rb"[A-Za-z0-9\-._~!$&'()*+,;=]"
_TRIPLET: Final = rb"%[0-9A-Fa-f]{2}"
# No group is repeated possessively here: until 3.11.5 Python keeps part of a last round that does not fit.
HOST: Final = re.compile(
    rb"(?:(?:%b|%b)%b*+(?:%b%b*+)*|\[[0-9A-Fa-f:.]++\])(?::%b)?" % (_NAMED, _TRIPLET, _NAMED, _TRIPLET, _NAMED, _PORT)
)

# RFC 9110 section 7.8: protocol = protocol-name [ "/" protocol-version ]
PROTOCOL: Final = re.compile(TCHAR + rb"++(?:/" + TCHAR + rb"++)?")

# RFC 9112 section 7.1: chunk-size = 1*HEXDIG, here at most 15 digits; blanks around an extension are BWS.
# Groups: size, extension.
CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15}+)((?:[ \t]*+;" + FIELD_OCTET + rb"*+)?)\r\n")

# An LF without its CR, or a CR without its LF, before the end of what has arrived.
BARE_CR_OR_LF: Final = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")
