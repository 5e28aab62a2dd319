"""Devices that a student will run on, and measurements there; asyncssh and adb are used here alone."""
