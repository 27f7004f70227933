"""Run folders: what lies in one, who may write to it, and what a resumed run may change."""
