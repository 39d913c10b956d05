"""Schedules: steps and runbooks that are done on this host when the calendar says so, without their caller.

Read `model` for what is kept, `calendar` for when it is due, `keeper` for what is decided then, `turn` for how it is
done.
"""
