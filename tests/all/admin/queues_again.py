"""After the host was killed: what was accepted is there, and receipts hold."""

import sys

import boto3

sqs = boto3.client("sqs", endpoint_url=sys.argv[1])
url = sqs.get_queue_url(QueueName="orders")["QueueUrl"]
with open(sys.argv[2]) as file:
    receipt = file.read()

found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
assert found["ApproximateNumberOfMessages"] == "1", found
assert found["ApproximateNumberOfMessagesNotVisible"] == "1", found
got = sqs.receive_message(
    QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["ApproximateReceiveCount"]
)["Messages"]
(message,) = got
assert message["Body"] == "waits"
assert message["Attributes"] == {"ApproximateReceiveCount": "1"}, message
sqs.delete_message(QueueUrl=url, ReceiptHandle=receipt)
found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
assert found["ApproximateNumberOfMessagesNotVisible"] == "1", found

print("ok")
