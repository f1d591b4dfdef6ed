-- Takes a place for a subject, if fewer are taken than its limit says.
--
-- KEYS: the places of the subject, a sorted set of their names. The score of a place is the instant at which it expires, in
-- milliseconds. ARGV: the name of the place, the limit, and the time to live in milliseconds. The reply: 1 if the place is taken.

local places, place, limit, ttl = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

redis.call('ZREMRANGEBYSCORE', places, '-inf', string.format('%.0f', now))
-- A client may send the same command again when its connection fails.
local is_taken = redis.call('ZSCORE', places, place)
if not is_taken and redis.call('ZCARD', places) >= limit then return 0 end
redis.call('ZADD', places, string.format('%.0f', now + ttl), place)
-- Other processes may have a longer time to live.
if redis.call('PTTL', places) < ttl then redis.call('PEXPIRE', places, ttl) end
return 1
