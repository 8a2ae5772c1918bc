"""A webhook handler on Flask, with the checks that Twitch's documents ask for: signature, age, repeated ids."""

import hashlib
import hmac
import sys
from datetime import datetime, timedelta, timezone

from flask import Flask, request

port, secret = sys.argv[1:3]
seen = set()
app = Flask(__name__)


@app.post("/")
def receive():
    def head(name):
        return request.headers[f"Twitch-Eventsub-Message-{name}"]

    signed = head("Id").encode() + head("Timestamp").encode() + request.get_data()
    expected = "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, head("Signature")):
        return "", 403
    made = datetime.fromisoformat(head("Timestamp"))
    fresh = datetime.now(timezone.utc) - made < timedelta(minutes=10)
    if fresh and head("Id") not in seen and head("Type") == "notification":
        seen.add(head("Id"))
        print(request.get_json()["event"]["broadcaster_user_login"], flush=True)
    return "", 204


app.run("127.0.0.1", int(port))
