-- Keeps or frees places of several subjects.
--
-- KEYS: the places of each subject: see `take.lua`. ARGV: `keep` or `free`, the time to live in milliseconds, and for each subject the
-- number of its places and their names.

local is_kept, ttl = ARGV[1] == 'keep', tonumber(ARGV[2])
local time = redis.call('TIME')
local expires = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ttl)

local position = 2
local function argument()
  position = position + 1
  return ARGV[position]
end

for _, places in ipairs(KEYS) do
  for _ = 1, tonumber(argument()) do
    -- A place that has expired, or that this server has lost, is still held: it is added again.
    if is_kept then redis.call('ZADD', places, expires, argument()) else redis.call('ZREM', places, argument()) end
  end
  if is_kept and redis.call('PTTL', places) < ttl then redis.call('PEXPIRE', places, ttl) end
end
return 1
