"""A JSON view that takes real time to compute, cached for a minute and compressed."""

from aeros import WebServer

app = WebServer(__name__, host="127.0.0.1", port=8000)

HINTS = """\
Open   http://127.0.0.1:8000/primes/300000
Try    curl -i http://127.0.0.1:8000/primes/300000 | head -12                 (run it twice)
       curl -i -H 'Accept-Encoding: br' --output - http://127.0.0.1:8000/primes/300000 | head -12
       curl -i -H 'If-None-Match: <the ETag you got>' http://127.0.0.1:8000/primes/300000"""


@app.route("/primes/<int:limit>")
@app.cache(timeout=60)
def primes(limit: int) -> dict[str, list[int]]:
    limit = min(limit, 1_000_000)
    sieve = bytearray([1]) * (limit + 1)
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(sieve[number * number :: number]))
    return {"primes": [number for number in range(2, limit + 1) if sieve[number]]}


if __name__ == "__main__":
    print(HINTS, flush=True)
    app.run_server()
