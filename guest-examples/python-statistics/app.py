"""A table in CSV in, the statistics of one of its columns out.

    POST /statistics?column=price
"""

import csv
import json
import math
import statistics
from urllib.parse import parse_qs, urlsplit

from wit_world import exports
from wit_world.exports import http
from wit_world.imports import metrics


class Refused(Exception):
    """What the client is told, and not the fault of this function."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def numbers(text: str, column: str) -> list[float]:
    """The numbers of a column. Empty fields are left out."""
    rows = csv.DictReader(text.splitlines())
    if column not in (rows.fieldnames or []):
        raise Refused(422, f"there is no column `{column}`, but {rows.fieldnames or 'no table'}")
    found = []
    for row in rows:
        field = (row[column] or "").strip()
        if not field:
            continue
        try:
            number = float(field)
        except ValueError:
            number = math.nan
        # `float` also reads what JSON has no word for: nan, inf.
        if not math.isfinite(number):
            raise Refused(422, f"line {rows.line_num}: `{field}` is no number")
        found.append(number)
    if not found:
        raise Refused(422, f"column `{column}` has no number")
    return found


def summary(request: http.Request) -> dict[str, object]:
    if request.method != "POST":
        raise Refused(405, f"{request.method} is not answered here")
    query = parse_qs(urlsplit(request.path_with_query).query)
    if "column" not in query:
        raise Refused(400, "the parameter `column` is missing")
    column = query["column"][0]
    try:
        found = numbers(request.body.decode(), column)
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except csv.Error as error:
        raise Refused(400, f"the body is no CSV: {error}") from None
    metrics.add("statistics_numbers", float(len(found)), [])
    return {
        "column": column,
        "count": len(found),
        "min": min(found),
        "max": max(found),
        "mean": statistics.fmean(found),
        "median": statistics.median(found),
        "deviation": statistics.stdev(found) if len(found) > 1 else None,
    }


def answer(status: int, value: object, *more: tuple[str, bytes]) -> http.Response:
    headers = [("content-type", b"application/json"), *more]
    return http.Response(status, headers, json.dumps(value).encode())


class Http(exports.Http):
    # `async`, or it traps when it is called.
    async def handle(self, request: http.Request) -> http.Response:
        try:
            return answer(200, summary(request))
        except Refused as refused:
            # One line of JSON with `level` and `message` keeps both in the host's log.
            print(json.dumps({"level": "warn", "message": "refused", "why": str(refused)}))
            allow = [("allow", b"POST")] if refused.status == 405 else []
            return answer(refused.status, {"error": str(refused)}, *allow)
