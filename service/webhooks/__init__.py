"""Webhooks: sends the events of the outbox to a receiver, at least once.

    outbox -> delivery -> cloud_events, signatures -> endpoint -> the receiver
              schedule: what to send now, what to send again and when

cloud_events  an event as CloudEvents JSON
signatures    Standard Webhooks: HMAC-SHA256 over id, time and body
schedule      the decisions: order, attempts, pauses; pure
endpoint      one HTTP request
delivery      the task of the service
"""
