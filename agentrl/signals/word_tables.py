"""How people word what they think of an answer: tables of phrases for `wording`, as `phrases.any_of` reads them."""

from __future__ import annotations

from typing import Final

HEDGES: Final = r"""
    hm+/um+/uh/oh/ah/hey/well/and/but/so/sorry/wait/please/pls/actually/again/ok/okay/yes/yeah/sadly/unfortunately
    still
    also/now/i think/it seems/thanks/thank you/good/great/nice/then/next/after that/first
"""
"""What a sentence may begin with before it says something."""

IT: Final = r"it/this/that/these/those/they/there/this one/that one/your [\w-]+/your [\w-]+ [\w-]+"
"""What speaks of the answer."""

LINKS: Final = r"""
    's/'re/is/are/was/were/do/does/did/has/have/had/can/will/would/could/should/still/just/now/only/also/really/way/so
    definitely/clearly/simply/actually/looks?/seems?/feels?/sounds?/gives?/gave/comes?/came/got/even/again/all/out/like
    very/quite/completely/totally/a bit/a little
"""
"""What may stand between that and what is said of it."""

FAULTS: Final = r"""
    wrong/incorrect/off by/off[.!]?$/broken/missing/invalid/false/untrue/inaccurate/outdated/backwards/nonsense/useless
    worse/unhelpful/misleading/incomplete/confusing/unclear/unreadable/vague/shallow/generic/repetitive/redundant
    boring
    terrible/awful/too (?!bad|good|late)\w+/fail(?:s|ed|ing)?/crash(?:es|ed|ing)?/breaks?/broke/nothing/the opposite
    leaves out/ignores/omits/lacks/repeats/misses/throws/hangs/freezes/loses/contradicts/\w+er than before
    a (?:typo|mistake|bug|error)(?! in my)/the (?:wrong|same|other way)/far from/hard to
"""

FAILURES: Final = r"""
    (?:the )?same (?:error|problem|issue|result|mistake|thing)/nothing (?:happen|change)\w+
    (?:does|did|wo|is|was) ?(?:n't|not) (?:work|compile|help|run|fit|match|open|build|start|right|correct)\w*
    (?:fail(?:s|ing)|crash(?:es|ing)|broken)/i (?:don't|do not|doubt) ?(?:think|believe)? (?:so|that|it|this)
    (?!my\b|our\b)(?:[\w'-]+ ){1,3}(?:is|are) (?:still )?missing/one too (?:far|many|few)
    i(?:'m| am) (?:pretty|quite|fairly) sure (?:it|that|this|he|she|they|there|you|the)
    i (?:still |always |just )?(?:get|got|am getting|keep getting) (?:an? |the )?(?:\w+ )?(?:error|exception|\d{3})
    i (?:still |always |just )?(?:get|got|am getting|keep getting) (?:an? |the )?(?:blank|empty|nothing|warnings?)
    (?!i\b|we\b|my\b)[^,;]*\b(?:should|ought to|must) have (?:been|gone|said|used)
    i (?:get|got|count|make it|come to|calculate) \d+/i thought (?:it|that|this|he|she|you|the)
"""
"""How somebody reports that it did not work."""

DOUBTS: Final = r"""
    (?:was|is|are|should|were)n't (?:that|it|this|they)/didn't i (?:say|ask|tell)/why didn't you/did you even
"""
"""Questions that are none."""

REPROACHES: Final = r"""
    (?:why|where|how come|what|when) (?:did|do|didn't|don't|are|were|have) you/are you sure/did you even/you
"""
"""Questions after which people go on to speak of the answer."""

NO_FAULTS: Final = r"""
    matter/a problem/a big deal/bad/urgent/necessary/needed/important/hurt/mind/have to/need to/all/your fault/over/far
    everything/easy/the first time/only/way/rush/hurry/doubt/worth
"""
"""What is no fault behind a "not" or a "no"."""

LAPSES: Final = r"""
    forgot/lost/broke/misread/misunderstood/confused/overwrote/missed/ignored/skipped/dropped/mixed/duplicated/repeated
    messed/invented/misspelled/left out/\w+ .*\bwrong/already (?!know|have|can)\w+/never/keep/were supposed/mis\w+
    (?:did|do|have|were|are|should|ca|could)(?:n't| not)/can do better/\w+ me\b.*\balready
    (?:are|'re) (?:wrong|missing|using|still|mistaken)/(?:have|need) to have
    should (?:have (?!received|got)|use|be (?!able|aware)|write|not|always|never|only)\w*
"""
"""What "you" did wrong."""

DEEDS: Final = r"""
    left/gave/wrote/put/took/sent/kept/ran/cut/chose/made/did/deleted/removed/changed/renamed/moved/added/used (?!to)
    swapped/picked/selected/assumed/copied/translated/converted/rounded/counted/sorted/replaced/edited/pushed/answered
    included
"""
"""What "you" did: told to no other end, it is held against the author."""

GOOD: Final = r"""
    great/good/perfect/best/helpful/nice/excellent/amazing/right/correct/well/brilliant/lovely/fine/wonders/it!*$
    idea/laugh/smile/my (?:day|life|week)
"""

REFUSALS: Final = r"""
    wrong(?: [\w-]+){0,2} *(?:[.!,:;]|$)/incorrect *(?:[.!,:;]|$)/no such/meh\b
    [^\s,]+, not \S+\W*$
    (?:way |far |much )?too (?!bad|good|late|funny)\w+(?: \w+)?\W*$/less \w+(?:, more \w+)?\W*$
    not (?:what|quite|exactly|like|right|correct|good enough|that|this|helpful|working|the)\b
    (?:thanks|thank you|great|ok|okay|good|nice|almost|close|better)\b[^.!?]*\bbut (?!now|can|could|what|how|first)
    nit\b/missing \w+/needs \w+/[^?]*\binstead\W*$
"""
"""What turns an answer down."""

DISMISSALS: Final = r"""
    thanks/thank you/thx/i'?m (?:good|fine|ok|done|all)/i was/just/that'?s (?:all|it|fine|ok|okay|enough|good|alright)
    that is (?:all|fine|enough)/all good/nothing/need/problem/worries/rush/hurry/not (?:now|today|yet|needed|necessary)
    leave it/never ?mind/it'?s (?:ok|okay|fine|good|alright)/go ahead/you(?:'re| are) right/bye
"""
"""What makes of a "no" a "no more, thank you"."""

AGAIN: Final = r"""
    try (?:it |that )?again/start over/check your \w+/(?:check|look|count|think) (?:it |that )?again/can you stick to
    (?:do|write|say|put|phrase) (?:it|this|that|them) (?:again(?! for)|differently)
    re(?:do|write|phrase|calculate|count|check|compute)(?: (?:it|this|that|them))?(?= *(?:[.,!]|$|please|with|in|as))
    (?:undo|revert|fix|correct|roll back) (?:it|this|that|them|your \w+)(?= *(?:[.,!]|$|please|and))(?!.*: *\S)
    (?:put|change|move|set|bring) (?:it|this|that|them|the \w+) back/leave (?:it|them|that|those|the \w+) out
    (?:use|answer in|write in) (?!.* (?:to|for) )(?:\S+ ){1,6}?(?:instead|and not|not|rather)
    (?:don't|do not|never|not) (?:ever |just )?(?:use|write|put|add|change|touch|include|say|call|repeat|apologi[sz]e)
    (?:don't|do not|never|not) (?:ever |just )?(?:make|give|explain|guess|assume|invent|be|edit|delete|remove)
    (?:don't|do not) do (?:that|this|it)/stop (?:that|this|being)
    stop (?:us|add|mak|do|repeat|guess|chang|writ|ask|say|giv|apologi[sz]|invent|recommend|suggest|lectur|tell)ing
    (?:can|could|may) (?:i|we) (?:have|get|see) (?:it|that|this|them) (?:in|as|with|without)
"""
"""What asks for the same thing anew."""

RESTATES: Final = r"""
    i said (?!(?:that )?i\b|to |yes|he |she )/i (?:just |already |have )*told you/i asked (?:for|you)
    i meant (?!to )
    i wanted (?!to )/i only (?:asked|want|need)/i never (?:asked|said|want)/i already (?:said|asked|mentioned)
    i mean (?!it\b)/\S+ i (?:said|mean)\W*$/as (?:always|usual|agreed|discussed)\W*$
    i specifically/i (?:did|do)(?:n't| not) (?:just |really )?(?:ask|mean|want|say|like)/we already
    i want (?:it|that|them|this) (?!to )/i want (?:\S+ ){0,2}\S+(?: instead|, please| please)
    (?:as|like) i (?:always |already )?(?:said|say|told you|wrote|asked)(?: before| already| earlier)?(?= *[.,!]|$)
"""
"""What says once more what had been wanted."""

CUSTOMS: Final = r"""
    i (?:always |would )?prefer/i always want/i'd (?:prefer|rather)
    we \w+ (?=.*\b(?:here|never|always|everywhere|not|only|in this \w+)\b)/we (?:don't|do not)
    (?:we|our \w+) (?:all )?(?:use|uses|want|prefer|write|always|never|don't|do not|agreed)
    (?:it|this|that|these|they) (?:should|must|has to|have to|needs? to|ought to) (?!also|be (?:easy|quick|fine|enough))
    (?:it|this|that|these|they) (?:was|were|is) supposed to
    (?:it|this|that|they) (?:belongs?|goes|go) (?:to|in|into|under|on)/my \w+ (?:says|shows|gives|tells)
    the (?:(?:correct|right|real|actual) )?(?:answer|result|sum|total|name|address|number|place|date) is
    .*\b(?:though|remember)\W*$/.*\bnext time
"""
"""What says how things are done here; before a task it only explains that."""

NEW_SUBJECTS: Final = r"""
    one more thing/another/other project/reminds me/new (?:subject|topic|task|question)/different (?:subject|topic)
    unrelated/by the way/btw/for today/next[:,]/moving on/connection/wifi/internet/offline/got cut off
"""
"""What turns to something else, or speaks of the line between."""

ORDERS: Final = r"""
    add/analy[sz]e/answer (?:the|this|my)/append/book/build/buy/calculate/call/cancel/change/check/choose/clean
    click/clone/close
    commit/compare/compile/compute/continue/convert/copy/correct (?:the|this|my)/count/create/debug/delete/deploy
    describe/do/download
    draft/draw/edit/email/explain/export/extract/fetch/fill/find/fix/format/generate/get/give/go/help/implement/import
    install/list/load/look/make/merge/move/name/open/order/play/plot/post/print/proceed/proofread/push/put/read
    refactor
    remind/remove/rename/repair/replace/reserve/restart/review/revise/rewrite/run/save/search/select/send/set/show
    solve
    sort/start/stop/suggest/sum/summari[sz]e/switch/take/tell/test/translate/try/turn/undo/update/upload/use/visit
    write
    i (?:(?:also|still) )?need/and the/is there/are there/do you/can you/could you/would you/will you/let'?s
    let us/i'?d like/i would like/i need you/how/what/which/who/when/where
    why
"""
"""What a sentence that asks for something begins with."""

PRAISE: Final = r"""
    (?:that|this|you) did it/did the trick/works? (?:now|perfectly|great|like a charm|for me|as expected|again)
    (?:it|that|this|everything) (?:now )?(?:works|worked|runs|compiles|passes|builds|helped|fixed|solved)
    (?:exactly|just|precisely) (?:what|how|as|like|the \w+) (?:i|we)/(?:exactly|just) right/lgtm/spot on
    match(?:es)? (?:my|our)
    works?(?=[.!]|$)/that(?:'s| is) the one/what i (?:meant|mean)/solved it/i like it/clearer now
    (?:loads|works|runs|compiles|passes|starts) (?:again|now)/this is (?:gold|perfect|great)
    (?:what|how|as|where) i (?:needed|wanted|hoped|was looking|had in)/mak(?:es|ing) sense
    looks? (?:good|great|perfect|right)
    now i (?:get|understand) (?:it|this|that|why|how)/now i can/(?:is|'s|are) (?:right|correct|perfect|great|excellent)
    (?:so )?much better/lov(?:e|ing) (?:it|this|that)
    (?:good|great|nice|excellent) (?:work|job|catch|answer|stuff)/well done
    you (?:nailed|saved|fixed|solved|rock)/(?:really|very|super|so) helpful/life ?saver
    (?:nicely|neatly|beautifully) (?:done|put|said)/well (?:put|said)/(?:that|this|it) (?:really )?(?:helps|fits|suits)
    i'?m (?:(?:very|really|so) )?(?:happy|pleased|impressed|delighted)/i'?ll (?:use|keep|send) (?:it|this|that)
    what i was after/that'?ll do/(?:loved|liked) (?:it|this|that)/(?:is|are) (?:now )?(?:gone|fixed|solved|resolved)
    (?:that|this|it)(?:'s| is| was) (?:\w+ )?(?:good|lovely|wonderful|brilliant|beautiful|ideal)(?! (?:to|idea|point))
"""
"""What says that the answer did it."""

COMPLIMENTS: Final = r"""
    perfect/great/exactly/nice/brilliant/excellent/lovely/wonderful/awesome/amazing/fantastic/beautiful/superb/cool
    correct
    splendid/bravo/neat/magnificent/marvell?ous/terrific/sweet/hooray/bingo/outstanding/impressive/gorgeous/delightful
"""

RESERVES: Final = r"""
    not/never/but/except/however/though/although/almost/nearly/if/unless/should/would/only when/until/sometimes
"""

FORMS: Final = r"""
    shorter/longer/simpler/clearer/briefer/concise/brief/short/formal/informal/casual/polite/friendlier/politer/neutral
    technical/verbose/wordy/detailed/tables?/lists?/bullets?/points/numbered/paragraphs?/sentences?/words?/lines?
    headings?/metric/imperial/units?/celsius/fahrenheit/euros/dollars/kilometres/kilometers/km/miles/kg/pounds
    plain/text
    prose/json/yaml/csv/markdown/emojis?/jargon/slang/uppercase/lowercase/capitals/tabs/spaces/semicolons/hints
    comments
    docstrings/quotes/digits/decimals?/rounded/commas/exclamation/marks/british/american/spelling/abbreviations
    acronyms
"""
"""What an answer may look like."""

FILLERS: Final = r"""
    please/pls/in/an?/the/use/using/make/keep/write/put/it/them/that/this/only/just/too/much/more/less/with
    without/no/not
    under/over/max/at/most/than/one/two/three/four/five/six/ten/of/to/be/i/want/need/prefer/instead/my/our/for/me
    us/here
    bit/little/slightly/way/very/so/or/by/as/again/always/never/do/don't/full/\d+
"""

COMMON: Final = r"""
    the/and/but/for/from/with/this/that/these/those/they/them/its/it's/that's/has/have/had/was/were/are/is/will
    would/can
    could/should/shall/may/did/does/done/been/being/not/you/your/yours/our/his/her/she/him/who/what/which/when
    where/why
    how/one/ones/all/any/some/into/onto/out/off/over/about/than/then/there/here/now/just/also/only/very/more/most
    please
"""
"""Words that say nothing of what a text is about."""

PLAIN: Final = r"""
    a/an/the/and/but/or/nor/so/yet/if/then/than/as/at/by/for/from/in/into/of/off/on/onto/out/over/to/under/up/with
    without/about/after/before/again/against/all/already/also/always/am/any/are/aren't/be/been/both/can/can't/cannot
    could/couldn't/did/didn't/do/does/doesn't/doing/don't/done/each/either/else/even/ever/every/few/first/had/has
    hasn't/have/haven't/he/her/here/hers/him/his/how/however/i/i'd/i'll/i'm/i've/instead/is/isn't/it/its/it's/just
    last/least/less/let/like/made/make/many/me/meant/mean/might/mine/more/most/much/must/my/neither/never/new/next/no
    none/not/nothing/now/ok/okay/old/one/only/other/our/ours/please/quite/rather/really/right/same/second/shall/she
    should/shouldn't/since/some/something/still/such/sure/thank/thanks/that/that's/their/them/there/there's/these/they
    they're/this/those/though/three/time/too/two/until/us/use/very/want/wanted/was/wasn't/way/we/we're/well/were
    weren't/what/what's/when/where/which/while/who/whose/why/will/won't/would/wouldn't/wrong/yes/you/you're/your
    yours/said/asked/hm/hmm/oh/ah/wait/sorry/yep/yeah/nope/nah/lol/haha/um/uh/work/works/worked/good/great/nice
    perfect/exactly/better
"""
"""Words that are told apart whatever a text is about."""
