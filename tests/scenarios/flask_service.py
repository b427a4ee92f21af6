"""The app of the encrypt-every-hop scenario, as its users have it: it knows nothing of TLS."""

from flask import Flask

app = Flask(__name__)


@app.get("/service")
def service() -> str:
    return "Hello from the service behind the proxy!\n"
