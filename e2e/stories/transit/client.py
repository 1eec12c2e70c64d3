"""A client of the transit engine, as an application would be: hvac, and raw requests in the shape of Vault's documentation.

Arguments: what to do, the engine's address and port, the trusted CA, certificate chain and key of the client, the name of the key, and
whatever else it takes. Whatever is not as expected ends it with an error."""

import base64
import socket
import sys

todo, host, port, ca, chain, key, name, *more = sys.argv[1:]

real_getaddrinfo = socket.getaddrinfo


def resolve(asked, *rest, **named):
    # What the cluster's DNS does. The name is still compared with the server's certificate.
    return real_getaddrinfo(host if asked == "coordinator" else asked, *rest, **named)


socket.getaddrinfo = resolve

import hvac
import requests
from hvac.exceptions import Forbidden, InvalidRequest

URL = f"https://coordinator:{port}"


def b64(raw):
    return base64.b64encode(raw).decode()


def refused(kind, call, text):
    try:
        call()
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"expected {kind.__name__}")


def raw(session, method, path, expected, **body):
    answer = session.request(method, f"{URL}/v1/{path}", **body)
    assert answer.status_code == expected, (path, answer.status_code, answer.text)
    return answer.json()


def session(with_certificate=True):
    session = requests.Session()
    session.trust_env = False  # A CA bundle of the environment would take precedence.
    session.verify = ca
    session.cert = (chain, key) if with_certificate else None
    session.headers["X-Vault-Token"] = "ignored"
    session.headers["X-Vault-Request"] = "true"
    return session


def operations(transit, client):
    made = transit.encrypt_data(name=name, plaintext=b64(b"unseal me"))["data"]
    assert made["ciphertext"].startswith("vault:v1:") and made["key_version"] == 1, made
    ciphertext = made["ciphertext"]
    assert transit.decrypt_data(name=name, ciphertext=ciphertext)["data"]["plaintext"] == b64(b"unseal me")

    bound = transit.encrypt_data(name=name, plaintext=b64(b"x"), associated_data=b64(b"a"))["data"]["ciphertext"]
    opened = transit.decrypt_data(name=name, ciphertext=bound, associated_data=b64(b"a"))
    assert opened["data"]["plaintext"] == b64(b"x")
    refused(InvalidRequest, lambda: transit.decrypt_data(name=name, ciphertext=bound), "not made with this key")

    newer = transit.rewrap_data(name=name, ciphertext=ciphertext, key_version=2)["data"]["ciphertext"]
    assert newer.startswith("vault:v2:"), newer
    assert transit.decrypt_data(name=name, ciphertext=newer)["data"]["plaintext"] == b64(b"unseal me")

    items = [{"plaintext": b64(b"0")}, {"plaintext": b64(b"1"), "reference": "one"}]
    batch = transit.encrypt_data(name=name, plaintext="", batch_input=items)["data"]["batch_results"]
    assert batch[1]["reference"] == "one", batch
    opened = transit.decrypt_data(name=name, ciphertext="", batch_input=[{"ciphertext": one["ciphertext"]} for one in batch])
    assert [one["plaintext"] for one in opened["data"]["batch_results"]] == [b64(b"0"), b64(b"1")]

    both = transit.generate_data_key(name=name, key_type="plaintext", bits=128)["data"]
    assert transit.decrypt_data(name=name, ciphertext=both["ciphertext"])["data"]["plaintext"] == both["plaintext"]
    wrapped = transit.generate_data_key(name=name, key_type="wrapped")["data"]
    assert "plaintext" not in wrapped

    assert len(base64.b64decode(transit.generate_random_bytes(n_bytes=24)["data"]["random_bytes"])) == 24
    hashed = transit.hash_data(hash_input=b64(b"abc"), algorithm="sha2-256")["data"]["sum"]
    assert hashed.startswith("ba7816bf"), hashed

    hmac = transit.generate_hmac(name=name, hash_input=b64(b"m"), algorithm="sha2-512")["data"]["hmac"]
    right = transit.verify_signed_data(name=name, hash_input=b64(b"m"), hmac=hmac, hash_algorithm="sha2-512")
    assert right["data"]["valid"] is True
    wrong = transit.verify_signed_data(name=name, hash_input=b64(b"n"), hmac=hmac, hash_algorithm="sha2-512")
    assert wrong["data"]["valid"] is False
    signature = transit.sign_data(name=name, hash_input=b64(b"m"), hash_algorithm="sha2-384", marshaling_algorithm="asn1")
    signature = signature["data"]["signature"]
    right = transit.verify_signed_data(
        name=name, hash_input=b64(b"m"), signature=signature, hash_algorithm="sha2-384", marshaling_algorithm="asn1"
    )
    assert right["data"]["valid"] is True

    described = transit.read_key(name=name)["data"]
    assert described["type"] == "aes256-gcm96" and described["latest_version"] == 1, described
    assert client.sys.read_health_status(method="GET")["sealed"] is False
    assert client.sys.read_health_status(method="HEAD").status_code == 200
    assert client.sys.is_sealed() is False
    assert client.auth.token.lookup_self()["data"]["renewable"] is False
    refused(InvalidRequest, lambda: client.auth.token.renew_self(), "not renewable")

    refused(Forbidden, lambda: transit.encrypt_data(name="another", plaintext=""), "permission denied")
    refused(Forbidden, lambda: transit.read_key(name="another"), "permission denied")
    return ciphertext


def raw_requests():
    with session() as own:
        encrypt, decrypt = f"transit/encrypt/{name}", f"transit/decrypt/{name}"
        data = raw(own, "PUT", encrypt, 200, json={"plaintext": b64(b"seal")})["data"]
        assert raw(own, "PUT", decrypt, 200, json={"ciphertext": data["ciphertext"]})["data"]["plaintext"] == b64(b"seal")
        raw(own, "POST", encrypt, 200, json={"plaintext": "", "key_version": "1", "unknown": [1]})
        for body, text in [
            ({"plaintext": "%"}, "base64"),
            ({"plaintext": "", "context": "AA=="}, "context"),
            ({"plaintext": "", "key_version": 5000}, "at most 1024"),
            ({}, "plaintext: missing"),
        ]:
            assert text in raw(own, "POST", encrypt, 400, json=body)["errors"][0]
        for ciphertext in ["vault:v1:AAAA", "vault:1:AAAA", "nonsense", "vault:v1:%"]:
            assert raw(own, "POST", decrypt, 400, json={"ciphertext": ciphertext})["errors"]
        assert "JSON" in raw(own, "POST", encrypt, 400, data="plaintext")["errors"][0]
        partly = raw(own, "POST", encrypt, 400, json={"batch_input": [{"plaintext": ""}, {"plaintext": "%"}]})
        results = partly["data"]["batch_results"]
        assert "ciphertext" in results[0] and "error" in results[1], partly
        assert raw(own, "GET", encrypt, 405)["errors"] == ["unsupported operation"]
        assert raw(own, "POST", "transit/export/encryption-key/a", 404)["errors"] == []
        assert raw(own, "POST", "transit/encrypt/another", 403, json={"plaintext": ""})["errors"] == ["permission denied"]
        assert raw(own, "GET", "sys/seal-status", 200)["sealed"] is False
        raw(own, "GET", "sys/health?activecode=299", 299)
        try:
            # The engine answers before it has read all of it.
            answer = own.post(f"{URL}/v1/{encrypt}", data="x" * (1 << 20) + "x")
            assert answer.status_code == 413, answer.text
        except requests.exceptions.ConnectionError:
            pass


if todo == "operations":
    client = hvac.Client(url=URL, token="ignored", cert=(chain, key), verify=ca)
    made = operations(client.secrets.transit, client)
    raw_requests()
    print(made)
elif todo == "decrypt":
    with session() as own:
        data = raw(own, "POST", f"transit/decrypt/{name}", 200, json={"ciphertext": more[0]})["data"]
        print(base64.b64decode(data["plaintext"]).decode())
elif todo == "foreign":
    with session() as own:
        answer = raw(own, "POST", f"transit/decrypt/{name}", 403, json={"ciphertext": more[0]})
        assert answer == {"errors": ["permission denied"]}, answer
elif todo == "anonymous":
    with session(with_certificate=False) as nobody:
        refused(requests.exceptions.ConnectionError, lambda: nobody.get(f"{URL}/v1/sys/health"), "")
elif todo == "removed":

    def denied(session):
        answer = raw(session, "POST", f"transit/encrypt/{name}", 403, json={"plaintext": ""})
        assert answer == {"errors": ["permission denied"]}, answer

    # The connection stays open while the manifest changes.
    with session() as own:
        raw(own, "POST", f"transit/encrypt/{name}", 200, json={"plaintext": ""})
        print("connected", flush=True)
        sys.stdin.readline()
        denied(own)
        with session() as again:
            # The mesh CA before is trusted for a while, but the manifest does not know the workload.
            denied(again)
        print("denied", flush=True)
        sys.stdin.readline()
        denied(own)
    with session() as again:
        refused(requests.exceptions.ConnectionError, lambda: again.get(f"{URL}/v1/sys/health"), "")
else:
    raise SystemExit(f"unknown: {todo}")
