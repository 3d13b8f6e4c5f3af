"""A little service: makes orders, stores them compressed, searches them, adds them up.  Runs for argv[1] seconds.

With another argument it waits first until its standard input ends.
"""

import hashlib
import json
import random
import re
import sqlite3
import sys
import threading
import time
import zlib
from typing import Any, Dict, List, Tuple

Order = Dict[str, Any]


class Store:
    def __init__(self) -> None:
        self.rows: Dict[int, bytes] = {}
        self.db = sqlite3.connect(":memory:", check_same_thread=False)
        self.db.execute("create table orders (id integer, total real, body blob)")

    def put(self, order: Order) -> None:
        body = json.dumps(order).encode()
        self.rows[order["id"]] = zlib.compress(body, 6)
        self.db.execute("insert into orders values (?, ?, ?)", (order["id"], order["total"], body))

    def search(self, pattern: str) -> List[int]:
        found = re.compile(pattern)
        return [key for key, row in self.rows.items() if found.search(zlib.decompress(row).decode())]

    def totals(self) -> List[Tuple[int, float, int]]:
        return self.db.execute("select id % 10, sum(total), count(*) from orders group by 1 order by 2").fetchall()

    def clear(self) -> None:
        self.rows.clear()
        self.db.execute("delete from orders")


def make_order(number: int) -> Order:
    items = [{"sku": "A-" + str(random.randrange(10**6)), "price": random.random() * 100} for _ in range(12)]
    return {"id": number, "items": items, "total": sum(item["price"] for item in items)}


def by_price(order: Order) -> List[Dict[str, Any]]:
    return sorted(order["items"], key=lambda item: -item["price"])


def digest(orders: List[Order]) -> None:
    for order in orders:
        hashlib.sha256(json.dumps(by_price(order)).encode() * 20).hexdigest()


def serve(seconds: float) -> None:
    store, end, number = Store(), time.time() + seconds, 0
    while time.time() < end:
        orders = [make_order(number + i) for i in range(40)]
        number += len(orders)
        for order in orders:
            store.put(order)
        digest(orders)
        store.search(r'"sku": "A-12\d+3"')
        store.totals()
        if len(store.rows) > 400:
            store.clear()


def main() -> None:
    if sys.argv[2:]:
        sys.stdin.read()
    workers = [threading.Thread(target=serve, args=(float(sys.argv[1]),), name="worker-" + str(i)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


main()
