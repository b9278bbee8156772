"""Finetuning: one engine, four stages as data."""
