"""Hints that help: what tools, compilers, services, windows and users really answer to an action that failed.

Each is (the action, what was answered). The action is a shell command unless the family says otherwise.
"""

import random

from agentrl.nano import vocabulary as v

BY_HAND: dict[str, tuple[tuple[str, str], ...]] = {
    "command line": (
        ("git stauts", "git: 'stauts' is not a git command. Did you mean 'status'?"),
        ("git push origin feature", "hint: use 'git pull' before pushing feature again."),
        ("git checkout -b fix main", "fatal: a branch named 'fix' exists; use 'git switch fix' instead"),
        (
            "git branch -d old",
            "error: branch 'old' is not fully merged; run 'git branch -D old' if you are sure",
        ),
        ("git commit", "error: nothing staged; use 'git add' to include changes in the commit"),
        ("git pull", "fatal: need to specify how to reconcile; try 'git pull --rebase'"),
        ("pip instal flask", 'ERROR: unknown command "instal" - maybe you meant "install"? Try pip install.'),
        ("python setup.py install", "setup.py install is deprecated. Use build and pip instead."),
        ("python main.py", "bash: python: command not found. Did you mean python3?"),
        ("npm isntall", "Unknown command: isntall. Did you mean npm install?"),
        ("npm run biuld", 'Missing script: "biuld". Did you mean "npm run build"?'),
        ("cargo biuld", "error: no such command: `biuld`. Did you mean `build`?"),
        ("docker-compose up", "docker-compose: command not found; use 'docker compose up' instead"),
        ("kubectl get pod -n", "error: flag needs an argument; use -n NAME"),
        ("tar xf a.zip", "tar: this does not look like a tar archive, try unzip"),
        ("head -n a.txt", "head: invalid number of lines: 'a.txt'; use -n NUM"),
        ("grep -P x a.txt", "grep: -P is not supported on this system, use -E"),
        ("sed -i s/a/b/ f", 'sed: -i needs an argument on this system; use -i ""'),
        ("ls --colour", "ls: unrecognized option '--colour'. Did you mean '--color'?"),
        ("rm docs", "rm: cannot remove 'docs': Is a directory; use rmdir instead"),
        ("cp docs copy", "cp: omitting directory 'docs'; use -r to copy it"),
        ("mkdir a/b/c", "mkdir: cannot create directory 'a/b/c'; use -p to create parents"),
        ("sort -k a.txt", "sort: key must be a number; use -k 1"),
        ("make biuld", "make: *** No rule to make target 'biuld'. Did you mean 'build'?"),
        ("apt-get instal jq", "E: Invalid operation instal. You should use install."),
        ("brew cask install x", "Error: `brew cask` is disabled! Use brew install --cask instead."),
        ("go get example", "go: go get is no longer supported outside a module; use 'go install' instead"),
        ("terraform aply", 'Terraform has no command named "aply". Did you mean "apply"?'),
        ("node app.ts", "Unknown file extension .ts for app.ts; use tsx app.ts instead"),
        ("systemctl restrat nginx", "Unknown command verb restrat, did you mean restart?"),
    ),
    "compilers": (
        ("cargo build", "help: consider borrowing here: `&name`"),
        ("cargo build", "help: use `.iter()` instead of `.into_iter()`"),
        ("cargo check", "error[E0425]: cannot find value `lenght`; did you mean `length`?"),
        ("cargo build", "help: consider cloning the value: `.clone()`"),
        ("cargo build", "help: try using a conversion method: `.to_string()`"),
        ("gcc main.c", "main.c:3: error: 'pritnf' undeclared; did you mean 'printf'?"),
        ("gcc main.c", "main.c:9:5: error: expected ';' before 'return'"),
        ("g++ a.cpp", "a.cpp:4: error: 'cout' was not declared; did you mean 'std::cout'?"),
        ("clang a.c", "a.c:7: error: use of undeclared identifier 'cnt'; did you mean 'count'?"),
        ("tsc", "error TS2551: Property 'lenght' does not exist on type 'string'. Did you mean 'length'?"),
        ("tsc", "error TS2304: Cannot find name 'process'. Try `npm i @types/node`."),
        ("javac Main.java", "Main.java:5: error: ';' expected"),
        ("go build", "./main.go:8: fmt.println undefined; did you mean fmt.Println?"),
        ("python app.py", "NameError: name 'pirnt' is not defined. Did you mean: 'print'?"),
        (
            "python app.py",
            "AttributeError: module 'time' has no attribute 'clock'; use time.perf_counter instead",
        ),
        ("python app.py", "SyntaxError: Missing parentheses in call to 'print'. Did you mean print(...)?"),
        (
            "python app.py",
            "ImportError: cannot import name 'Mapping' from 'collections'. Did you mean: 'collections.abc'?",
        ),
        ("python app.py", "TypeError: unhashable type: 'list'; use a tuple instead"),
        ("pytest", "PytestUnknownMarkWarning: Unknown pytest.mark.slwo, did you mean slow?"),
        ("pytest", "fixture 'clinet' not found; available: client, config"),
        ("ruff check .", "UP006 Use `list` instead of `List` for type annotation"),
        ("mypy app.py", 'error: "dict" expects 2 type arguments; use dict[str, int]'),
        ("npx eslint a.js", "error: 'x' is never reassigned. Use 'const' instead  prefer-const"),
        ("swift build", "error: value of type 'Int' has no member 'lenght'; did you mean 'length'?"),
        ("dotnet build", "error CS0103: The name 'Consle' does not exist; did you mean 'Console'?"),
        ("psql -f q.sql", 'ERROR: column "nmae" does not exist. Perhaps you meant "name" and should use it.'),
        ("sqlite3 a.db .tabels", 'Error: unknown command: "tabels". Enter ".help" for help; try .tables'),
        ("psql -f q.sql", "HINT: use count(*) instead of count()"),
    ),
    "services": (
        ('http_get {"path": "/v1/users"}', "410 Gone: /v1/users was replaced by /v2/users"),
        ('http_get {"path": "/user"}', "404 Not Found: no route /user. Did you mean /users?"),
        ('http_post {"path": "/items", "body": "a=1"}', "415 Unsupported Media Type: use application/json"),
        ('http_get {"path": "/items", "limit": "1000"}', "400: limit must be at most 100"),
        ('http_post {"path": "/items", "price": "4,5"}', "422: price must be a number, such as 4.5"),
        ('http_get {"path": "/items"}', "405 Method Not Allowed: use POST for /items"),
        ('http_get {"path": "/orders", "date": "3/4/24"}', "400: date must be in the format YYYY-MM-DD"),
        ('create_event {"start": "tomorrow"}', "start: expected an ISO 8601 time"),
        ('create_event {"title": "x", "when": "9"}', "unknown argument 'when'; did you mean 'start'?"),
        ('search {"q": "x", "max": 500}', "max must be between 1 and 50"),
        ('search {"query": ""}', "query should not be empty; provide at least one word for query"),
        ('get_weather {"city": "Pari"}', "city 'Pari' not found. Did you mean 'Paris'?"),
        ('get_weather {"city": "Rome", "unit": "F"}', "unit must be 'celsius' or 'fahrenheit'"),
        ('read_page {"page": 0}', "page must be at least 1; use 1 for the first page"),
        ('list_issues {"state": "opened"}', "state: 'opened' is not allowed, use 'open' or 'closed'"),
        ('convert {"from": "euro"}', "from: expected a code of three letters, such as EUR"),
        ('translate {"lang": "german"}', "lang 'german' is not supported; use 'de'"),
        ('db_query {"sql": "select * from user"}', 'relation "user" does not exist; did you mean "users"?'),
        ('edit_file {"path": "a.py", "old": "x"}', "old occurs 3 times in a.py; it must be unique"),
        ('edit_file {"path": "a.py", "line": 0}', "line must be 1 or more"),
        ('read_file {"file": "a.py"}', "unexpected argument 'file'; the right argument is 'path'"),
        ('read_file {"path": "src"}', "src is a directory; use list_files for src"),
    ),
    "windows": (
        ('type {"field": "Date", "text": "3/4/24"}', "Error: Date must be in the format YYYY-MM-DD"),
        ('click {"target": "Sav"}', "Error: no element 'Sav'. Did you mean 'Save'?"),
        ('click {"target": "Submit"}', "Error: Submit is not enabled; you must enter a Name first"),
        (
            'select {"menu": "Colour", "item": "gren"}',
            "Error: Colour has no item gren; available: green, red",
        ),
        ('type {"field": "Email", "text": "x"}', "Error: Email must contain an @"),
        ('type {"field": "Age", "text": "old"}', "Error: Age should be a number"),
        ('click {"target": "File > Export"}', "Error: Export moved to the menu Share; use Share > Export"),
        ('press {"key": "Return"}', "Error: unknown key Return; use Enter"),
        ('scroll {"by": "down"}', "Error: by must be a number of pixels"),
        ('open_tab {"number": 9}', "Error: there is no tab 9; use 1 to 3"),
    ),
    "users": (
        ("says: I put it into notes.txt.", "No, use tabs instead of spaces."),
        ("says: Done, saved as PDF.", "That's wrong, it should be a Word file."),
        ("says: Best regards, Bob", "Please don't sign with Bob, use Robert."),
        ("says: The price is $5.", "No, you should give prices in euros."),
        ("says: Dear Sir,", "Wrong tone. You should always write informally to her."),
        ("says: It takes 3 miles.", "No, use kilometres from now on."),
        ("says: Here is a long answer.", "No. You should keep your answers to one sentence."),
        ("says: def f(): pass", "You forgot the types. Please use type hints in every function."),
        ("says: I ran the tests.", "I said you should use pytest, not unittest."),
        ("says: Deployed.", "Stop. You must ask me before you deploy."),
        ("says: I deleted it.", "Undo that. You may never delete files without asking."),
        ("says: It is sunny.", "Actually, I meant Paris in Texas. Please use that."),
        ("says: print('x')", "No, use logging instead of print."),
        ("says: SELECT *", "That's not what I want, you need to name the columns."),
        ("says: 5 pm", "Incorrect, use 24-hour times."),
        ("says: Hi team!", "Don't use exclamation marks, please."),
        ("says: I used curl.", "No, you should use https://api.example.com/v2 instead."),
        ("says: Meeting at noon.", "You should remember that I never meet at noon."),
    ),
}


def house_rules() -> list[tuple[str, str]]:
    """Every wording with four operations, names of both halves and the alternatives that real houses name."""
    rng = random.Random(7)
    found = []
    for number, wording in enumerate(v.ERROR_WORDINGS):
        for operation in rng.sample(v.OPERATIONS, 4):
            values = v.arguments(rng, operation)
            old = rng.choice(operation.alternatives or (operation.command,))
            halves: tuple[v.Half, v.Half] = ("corpus", "rules")
            new = v.fresh_name(rng, halves[number % 2])
            others = [other for other in operation.alternatives if other != old]
            if others and rng.random() < 0.35:
                new = rng.choice(others)
            name = old if operation.key == "order_lines" else old.split()[0]
            found.append((operation.line(old, values), wording.format(old=name, new=new)))
    return found


HONEST: dict[str, tuple[tuple[str, str], ...]] = {"house rules": tuple(house_rules()), **BY_HAND}
