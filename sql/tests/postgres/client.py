"""What a Python program does over PostgreSQL's wire, with psycopg: exits with a traceback where something is not as it
should be.

usage: client.py PORT PASSWORD
"""

import datetime
import decimal
import sys
import threading
import time

import psycopg
from psycopg.rows import dict_row

PORT, PASSWORD = sys.argv[1], sys.argv[2]
ENDLESS = "SELECT sum(a.value * b.value) FROM generate_series(1, 1000000) AS a(value), generate_series(1, 1000000) AS b(value)"


def connect(**more):
    given = {"host": "127.0.0.1", "port": PORT, "user": "weir", "password": PASSWORD, "dbname": "weir", **more}
    return psycopg.connect(**given)


def types_in_both_formats():
    query = """SELECT CAST(7 AS BIGINT), CAST(1.5 AS DOUBLE), 'text', TIMESTAMP '2026-01-02T03:04:05.678901',
                      DATE '2026-01-02', true, NULL, CAST(12.345 AS DECIMAL(20, 3)), [1, 2, 3], ['a', NULL],
                      CAST(3 AS INT), CAST(0.25 AS REAL)"""
    wanted = (7, 1.5, "text", datetime.datetime(2026, 1, 2, 3, 4, 5, 678901), datetime.date(2026, 1, 2), True, None,
              decimal.Decimal("12.345"), [1, 2, 3], ["a", None], 3, 0.25)
    with connect() as connection:
        for binary in (False, True):
            found = connection.cursor(binary=binary).execute(query).fetchone()
            assert found == wanted, (binary, found)


def zones_are_utc():
    plain = "to_timestamp_millis(max(arrival_ms))"
    query = f"""SELECT {plain}, arrow_cast({plain}, 'Timestamp(Millisecond, Some("UTC"))') FROM requests"""
    wanted = datetime.datetime(2023, 11, 14, 22, 14, 20)
    with connect() as connection:
        for binary in (False, True):
            found = connection.cursor(binary=binary).execute(query).fetchone()
            assert found == (wanted, wanted.replace(tzinfo=datetime.timezone.utc)), found


def parameters_text_and_binary():
    query = "SELECT request_id, prompt_tokens FROM requests WHERE prompt_tokens >= %s AND domain = %s ORDER BY request_id"
    with connect() as connection:
        for style in ("%s", "%b", "%t"):
            found = connection.execute(query.replace("%s", style), (100, "math")).fetchall()
            assert found == [("r1", 100), ("r2", 800)], (style, found)
        # Prepared by name, used many times, and forgotten.
        for tokens, rows in [(0, 3), (100, 2), (500, 1), (5000, 0)] * 3:
            found = connection.execute(query, (tokens, "math"), prepare=True).fetchall()
            assert len(found) == rows, (tokens, found)


def rows_by_name_and_in_parts():
    with connect() as connection:
        cursor = connection.cursor(row_factory=dict_row)
        found = cursor.execute("SELECT model, requests FROM models ORDER BY model").fetchall()
        assert [row["model"] for row in found] == ["large", "small"], found
        assert cursor.description[1].type_code == 20, "int8"
        many = connection.execute("SELECT value FROM generate_series(1, 50000) AS t(value)").fetchall()
        assert len(many) == 50000 and many[-1] == (50000,)


def errors_have_their_class_and_leave_the_connection_usable():
    classes = [
        ("SELECT * FROM no_such_table", psycopg.errors.UndefinedTable),
        ("SELECT no_such_column FROM requests", psycopg.errors.UndefinedColumn),
        ("SELEC 1", psycopg.errors.SyntaxError),
        ("DELETE FROM requests", psycopg.errors.ReadOnlySqlTransaction),
        ("SELECT CAST(request_id AS INT) FROM requests", psycopg.errors.DataException),
    ]
    with connect(autocommit=True) as connection:
        for query, wanted in classes:
            for prepare in (False, True):
                try:
                    connection.execute(query, prepare=prepare).fetchall()
                except wanted as error:
                    assert "r1" not in str(error), error
                else:
                    raise AssertionError(f"{query} was taken")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def a_failed_transaction_takes_nothing_until_it_ends():
    with connect() as connection:
        for query, wanted in [("SELECT nothing", psycopg.Error), ("SELECT 1", psycopg.errors.InFailedSqlTransaction)]:
            try:
                connection.execute(query)
            except wanted:
                pass
            else:
                raise AssertionError(f"{query} was taken")
        connection.rollback()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def a_query_is_cancelled():
    with connect(autocommit=True) as connection:
        began = time.monotonic()
        threading.Timer(0.5, connection.cancel).start()
        try:
            connection.execute(ENDLESS)
        except psycopg.errors.QueryCanceled as error:
            assert "user request" in str(error), error
        else:
            raise AssertionError("an endless query ended")
        assert time.monotonic() - began < 20
        assert connection.execute("SELECT 1").fetchone() == (1,)


def a_query_that_takes_too_long_ends():
    with connect(autocommit=True) as connection:
        connection.execute("SET statement_timeout = 300")
        try:
            connection.execute(ENDLESS)
        except psycopg.errors.QueryCanceled as error:
            assert "statement timeout" in str(error), error
        else:
            raise AssertionError("an endless query ended")
        connection.execute("RESET statement_timeout")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def strangers_stay_outside():
    for wrong in ({"password": PASSWORD + "x"}, {"user": "postgres"}, {"password": ""}):
        try:
            connect(**wrong)
        except psycopg.OperationalError as error:
            assert PASSWORD not in str(error), error
        else:
            raise AssertionError(f"{wrong} was let in")


def several_at_once():
    failures = []

    def ask(number):
        try:
            with connect() as connection:
                for _ in range(5):
                    found = connection.execute("SELECT count(*), CAST(%s AS INT) FROM requests", (number,)).fetchone()
                    assert found == (4, number), found
        except Exception as error:  # told below, in the thread that counts
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


for check in (types_in_both_formats, zones_are_utc, parameters_text_and_binary, rows_by_name_and_in_parts,
              errors_have_their_class_and_leave_the_connection_usable, a_failed_transaction_takes_nothing_until_it_ends,
              a_query_is_cancelled, a_query_that_takes_too_long_ends, strangers_stay_outside, several_at_once):
    check()
    print(check.__name__)
