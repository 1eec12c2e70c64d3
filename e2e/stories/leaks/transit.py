"""Encrypts and decrypts with one transit key, again and again, over one connection."""

import base64
import http.client
import json
import ssl
import sys

address, ca, chain, private_key, name, rounds = sys.argv[1:]
host, port = address.rsplit(":", 1)
context = ssl.create_default_context(cafile=ca)
# The certificate has the Coordinator's name, and the test its address.
context.check_hostname = False
context.load_cert_chain(chain, private_key)
connection = http.client.HTTPSConnection(host, int(port), context=context)
plaintext = base64.b64encode(b"a key of a disk").decode()


def ask(operation, body):
    connection.request("POST", f"/v1/transit/{operation}/{name}", json.dumps(body))
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, (answer.status, text)
    return json.loads(text)["data"]


for _ in range(int(rounds)):
    ciphertext = ask("encrypt", {"plaintext": plaintext})["ciphertext"]
    assert ask("decrypt", {"ciphertext": ciphertext})["plaintext"] == plaintext
