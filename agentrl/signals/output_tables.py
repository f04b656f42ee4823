"""How tools and pages word that a call failed, that the machine failed and that a change was made: tables of phrases
for `outputs`, as `phrases.any_of` reads them.
"""

from __future__ import annotations

from typing import Final

REFUSALS: Final = r"""
    not/cannot/unable/(?:fail(?:ed|s)?|failure|(?<!0 )(?<!no )errors?)(?! ?0)/invalid/unknown/unsupported/missing
    refus(?:ed|ing)/rejected/denied/forbidden/unauthori[sz]ed/already (?:exists|taken|in use|closed)/outside/no longer
    out of (?:range|bounds)/expected (?:an?|one|iso|number|integer|string|format|type)/expected .{0,200} got/malformed
    illegal
    insufficient/undefined/unexpected/ambiguous/stale/covered by/exceed\w*/no such/(?:is|are) required/required \w+
    must/conflict\w*/blocked/too (?:long|short|many|large|small|big|few)/unrecogni[sz]ed/violation/mismatch/in the past
    incorrect/wrong/only .{0,200} (?:allowed|accepted|permitted)
    please (?:enter|choose|select|fill|provide|correct|check)
    found \d+ (?:matches|occurrences)/no (?:element|node|button|link|field|option|tool|function|match)
"""
"""How a tool that speaks for itself, or an alert on a page, words that a call was wrong."""

FAILED_STATES: Final = ("error", "failure", "failed", "rejected", "invalid", "denied")

OUTAGES: Final = r"""
    time[ds]?[ -]?out/\w+time-?out/time-?out(?:error|exception|expired)/took too long/deadline exceeded/attempts failed
    (?:could(?: not|n't)|cannot|can't|unable to|failed to) (?:connect|reach|resolve|lookup|contact)
    connect(?:ion|timeout)? ?error
    connection .{0,40}\b(?:refused|reset|aborted|broken|closed|lost|terminat\w+|dropped|timed|failed|failure)
    (?:failure|failed) (?:in name resolution|resolving)/name or service not known/no such host/getaddrinfo/dns error
    network (?:is )?(?:unreachable|down)/no route to host/host is down/broken pipe/hung up/hang up/early eof
    unexpected eof
    lost connection/remotedisconnected/recv failure/fetch failed/error decoding response/server misbehaving
    reset reason
    tls handshake/ssl_error\w*/certificate has expired/permission denied \(publickey
    err_(?:name|connection|internet|network|timed|address|ssl|empty|proxy|tunnel)\w*
    e(?:ai_again|notfound|conn(?:refused|reset|aborted)|timedout|pipe|hostunreach|netunreach|nospc|dquot|mfile|busy)
    too ?many ?(?:requests|connections|clients|open files)\w*/rate[_ -]?limit\w*/(?:pull|usage) limit/quota/throttl\w+
    slow ?down/request rate/exhausted/(?:insufficient|out of) (?:quota|credits|resources|disk|storage|memory|balance)
    (?:408|425|429|50[0-4]|52\d)\b.{0,20}\b(?:error|gateway|service|server|unavailable)/bad gateway/gateway time-?out
    (?:error|status|code|returned|http(?:s?|.\d(?:\.\d)?))\W{1,12}(?:code\W{0,4})?(?:408|425|429|50[0-4]|52\d)
    service ?(?:temporarily )?unavailable\w*/internal[ _]?(?:server)?[ _]?(?:error|exception)/something went wrong
    server (?:indicated|reported|returned) an? (?:failure|fault|error)/not closed cleanly/licen[cs]e server
    temporar(?:ily|y failure|y error)/try again (?:later|in|after|shortly)/retry (?:later|after|in)/session expired
    starting up/shutting down/maintenance/no space left/(?:free )?disk space/disk (?:is )?full/disk quota
    read-only (?:file ?system|mode)/input.output error/i.o error/stale file handle/transport endpoint is not connected
    cannot allocate memory/unable to allocate/oom/killed signal/signal 9/sigkill/text file busy
    resource (?:temporarily unavailable|busy)/could not get lock/database is locked/held by process
    (?:not |un)reachable/did not respond/no (?:response|answer) from/being (?:rebuilt|restarted|migrated|updated)
    (?:acquir\w+|obtain\w*|get) (?:the )?(?:\w+ )?lock/communicate with/come back (?:later|in)
    (?:page|browser|tab|target|context) (?:has )?(?:been |was )?(?:crashed|closed|destroyed|lost)/session not created
    (?:gpu|render(?:er)?|browser|worker) process (?:\S{1,20} ){0,2}exited unexpectedly/uncorrectable
    re-?authentication (?:is )?(?:required|failed|needed)/(?:login|token|credentials?)s? (?:has |have |is |are )?expired
"""
"""How a failure of the network, a service, a disk or the memory is worded."""

ANSWERS: Final = r"""
    (?:got|received|answered)\W{1,12}(?:code\W{0,4})?(?:408|425|429|50[0-4]|52\d)
"""
"""How a bare status is worded. It is one only where the line speaks of a server."""

ANSWERERS: Final = r"""
    http\w*/status/response/server/service/store/upstream/gateway/endpoint/api/backend/proxy/registry/mirror
"""
"""By which words a line speaks of a server."""

SERVICES: Final = r"""
    server/service/provider/database/broker/backend/upstream/host/api/system/endpoint/site/daemon/cluster/proxy/mirror
    registry/relay/sandbox/container/worker/tool/docker/kernel/model
"""

DOWN: Final = r"""
    unavailable/down/offline/unreachable/overloaded/busy/disconnect(?:ed)?/restarting
    (?:crash|kill|evict|terminat)ed/died
    not (?:available|responding|reachable|running|ready)/connect error
"""

OWN_FAULTS: Final = r"""
    (?:type|value|name|syntax|key|attribute|index|import|assertion|reference|indentation)error/unexpected keyword
    (?:unknown|unrecogni[sz]ed|invalid) (?:option|argument|value|choice|time|literal|flag)s?/cannot find/usage
    must be(?! (?:operational|running|up|online|available|reachable))
    40[0134]/422
    (?-i:FAIL)/assert\w*/wanted/want:? \W?\d+/expected(?! (?:back|soon|until|by|to (?:end|last|finish)))
"""
"""What is the caller's fault, whatever else the line speaks of: an argument may be called `timeout`, and a test says
what it expected."""

CHANGES: Final = {
    **dict.fromkeys(("create", "add", "new", "open", "make", "insert"), "created/added/opened/made/inserted"),
    **dict.fromkeys(("delete", "remove", "drop", "clear"), "deleted/removed/dropped/cleared"),
    **dict.fromkeys(
        ("update", "edit", "set", "change", "modify", "save"),
        "updated/edited/set (?:to|for)/changed/modified/saved/applied",
    ),
    **dict.fromkeys(
        ("send", "post", "notify", "publish", "reply"), "sent/posted/notified/published/delivered"
    ),
    **dict.fromkeys(
        ("book", "reserve", "schedule", "order", "buy"), "booked/reserved/scheduled/ordered/bought/confirmed"
    ),
    "pay": "paid",
    "write": "written/saved",
}
"""How a tool of that name says that it did it."""

LOOKUPS: Final = frozenset((
    "get", "list", "search", "find", "lookup", "read", "fetch", "show", "view", "query", "check", "describe", "count",
    "validate", "ask", "browse", "load", "open", "web", "inspect", "retrieve", "is", "has",
))  # fmt: skip
"""Verbs of tools that change nothing: what they say is what was asked for."""

SPEAKERS: Final = frozenset((
    *CHANGES, "patch", "apply", "replace", "move", "rename", "browser", "computer", "playwright", "puppeteer", "page",
    "str", "multiedit", "click", "type", "press", "fill", "goto", "navigate", "tap", "hover", "submit",
))  # fmt: skip
"""First words of tools that speak of what they were told to do, whatever else stands in their names."""

SHELLS: Final = frozenset((
    "run", "execute", "exec", "call", "bash", "shell", "sh", "terminal", "command", "cmd", "python", "code",
    "powershell", "console", "process", "ipython", "repl",
))  # fmt: skip
"""First words of tools that run a program: what they say is what the program prints."""

DONE: Final = r"""
    successful(?:ly)?/confirmed/thank you/welcome back/has been (?:sent|saved|placed|created|submitted)
    you(?:'re| are) (?:now )?(?:signed|logged) in
    (?:message|order|form|changes|settings|booking) (?:was |were |is )?(?:sent|placed|saved|submitted|completed?)
"""
"""How anybody says that it is done."""

PAGE_DONE: Final = r"""
    saved/sent/placed/submitted/booked/reserved/updated/deleted/removed/added/created/cancelled/completed?/registered
    subscribed/published/uploaded/received/paid
"""
"""How a page's message says it."""
