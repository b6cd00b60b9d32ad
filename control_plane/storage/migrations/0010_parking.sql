-- migrate:up
-- Whether this attempt's engine is to give its process back while its run waits for a person. 'refused': it never can.
ALTER TABLE attempts ADD COLUMN parking text CHECK (parking IN ('asked', 'refused'));
