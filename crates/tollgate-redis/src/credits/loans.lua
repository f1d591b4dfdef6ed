-- Lends the credits of loans to requests. A loan is a reservation in the ledger, and its tag the first 10 digits of the digest of its identifier.
--
-- KEYS: the account, its open reservations, and the record of one loan.
--   The account is a hash: `loan` (the tag of the loan that lends), `available` (what the ledger had left when the loan was taken), and of each loan `id`, `left`
--   (what it can lend), `back` (what returns to the ledger), `open` (what requests hold), `charged` (what each process has charged), `until` (when it stops to lend) and `closing`
--   (until when a process has the task to close it).
--   The open reservations are a sorted set of `identifier:amount` by expiry. An identifier begins with the tag of its loan.
--   The record is a hash of all reservations of the loan: `open amount expiry`, `settled instant ...` or `released instant`.
-- ARGV: the call, its instant, and what the call needs. Instants are in milliseconds. The reply: a word, and what follows from it.

local account, open, record = KEYS[1], KEYS[2], KEYS[3]
local name, now = ARGV[1], tonumber(ARGV[2])
local redis_call = redis.call
-- How long an identifier is remembered at most.
local DAY = 86400000

local function text(number) return string.format('%.0f', number) end
local function get(field) return tonumber(redis_call('HGET', account, field) or 0) end
local function set(field, value) redis_call('HSET', account, field, text(value)) end
local function add(field, amount) set(field, get(field) + amount) end
local function expire(key, ttl)
  if redis_call('PTTL', key) < ttl then redis_call('PEXPIRE', key, text(ttl)) end
end

-- Reservations whose time is up give their credits back.
for _, member in ipairs(redis_call('ZRANGEBYSCORE', open, '-inf', text(now))) do
  local tag, amount = member:sub(1, 10), tonumber(member:sub(34))
  redis_call('ZREM', open, member)
  if redis_call('HEXISTS', account, 'id:' .. tag) == 1 then
    add('left:' .. tag, amount)
    add('open:' .. tag, -amount)
  end
end

-- The tags of all loans of the account, and what was charged on each, by process.
local function loans()
  local tags, charged = {}, {}
  local fields = redis_call('HGETALL', account)
  for at = 1, #fields, 2 do
    local kind, tag, process = fields[at]:match('^(%a+):(%x+):?(%x*)$')
    if kind == 'id' then tags[#tags + 1] = tag end
    if kind == 'charged' then
      charged[tag] = charged[tag] or { sum = 0 }
      charged[tag].sum = charged[tag].sum + tonumber(fields[at + 1])
      table.insert(charged[tag], process)
      table.insert(charged[tag], fields[at + 1])
    end
  end
  return tags, charged
end

-- Whether a loan lends, or requests hold credits of it.
local function is_open(tag)
  local lends = redis_call('HGET', account, 'loan') == tag and now < get('until:' .. tag) and get('left:' .. tag) > 0
  return lends or get('open:' .. tag) > 0
end

local calls = {}

-- ARGV: the identifier, the amount, its expiry, the most open reservations, and the most reservations of a loan.
function calls.reserve()
  local id, amount, expires = ARGV[3], tonumber(ARGV[4]), ARGV[5]
  local tag, current = id:sub(1, 10), redis_call('HGET', account, 'loan')
  if current ~= tag then return { 'other', current and redis_call('HGET', account, 'id:' .. current) or '' } end
  local left = get('left:' .. tag)
  -- A client may send the same command again when its connection fails.
  if redis_call('HEXISTS', record, id) == 0 then
    if now >= get('until:' .. tag) or left < amount or redis_call('HLEN', record) > tonumber(ARGV[7]) then return { 'used' } end
    if redis_call('ZCARD', open) >= tonumber(ARGV[6]) then return { 'many' } end
    left = left - amount
    set('left:' .. tag, left)
    add('open:' .. tag, amount)
    redis_call('ZADD', open, expires, id .. ':' .. text(amount))
    redis_call('HSET', record, id, 'open ' .. text(amount) .. ' ' .. expires)
    expire(open, redis_call('PTTL', account))
  end
  return { 'held', left, redis_call('HGET', account, 'available') }
end

-- ARGV: the identifier, `commit` or `release`, the actual cost, 1 if more than the reserved amount may be charged, the excess as the process
-- writes it, and the process.
function calls.settle()
  local id, actual, process = ARGV[3], tonumber(ARGV[5]), ARGV[8]
  local tag, known = id:sub(1, 10), redis_call('HGET', record, id)
  if not known then return { 'unknown' } end
  local words = {}
  for word in known:gmatch('%S+') do words[#words + 1] = word end
  if words[1] ~= 'open' then
    if now >= tonumber(words[2]) + DAY then return { 'forgotten' } end
    return words
  end
  local amount = tonumber(words[2])
  if now >= tonumber(words[3]) + DAY then return { 'forgotten' } end

  -- A loan that is being closed lends and charges nothing more.
  local is_here = redis_call('HEXISTS', account, 'id:' .. tag) == 1 and get('closing:' .. tag) == 0
  local left = is_here and get('left:' .. tag) or 0
  if redis_call('ZREM', open, id .. ':' .. text(amount)) == 1 and is_here then
    add('open:' .. tag, -amount)
    left = left + amount
  end
  local reply
  if ARGV[4] == 'release' then
    reply = { 'released', text(now) }
  else
    local promised = math.min(actual, amount)
    local beyond = ARGV[6] == '1' and actual - promised or 0
    local charged = math.min(promised + beyond, left)
    left = left - charged
    if charged > 0 then add('charged:' .. tag .. ':' .. process, charged) end
    local rest = math.max(promised - charged, 0)
    beyond = beyond - math.max(charged - promised, 0)
    reply = { 'settled', text(now), text(charged), text(rest), text(beyond), text(actual), ARGV[7] }
  end
  if is_here then set('left:' .. tag, left) end
  redis_call('HSET', record, id, table.concat(reply, ' '))
  return reply
end

-- ARGV: the tag of a new loan, its identifier, its amount, until when it lends, how long everything is kept, the tag of the loan that does not
-- suffice, and what the ledger has left.
function calls.open()
  local tag, amount, seen = ARGV[3], ARGV[5], ARGV[8]
  local current = redis_call('HGET', account, 'loan')
  -- The client of a cluster sends the same command again when a connection fails. Another loan can lend by then.
  if redis_call('EXISTS', record) == 1 then return { 'opened' } end
  if current and current ~= seen and now < get('until:' .. current) and get('left:' .. current) > 0 then
    return { 'other', redis_call('HGET', account, 'id:' .. current) }
  end
  redis_call('HSET', account, 'loan', tag, 'available', ARGV[9], 'id:' .. tag, ARGV[4], 'left:' .. tag, amount, 'until:' .. tag, ARGV[6])
  redis_call('HSET', record, 'loan', ARGV[4])
  expire(account, tonumber(ARGV[7]))
  expire(record, tonumber(ARGV[7]))
  return { 'opened' }
end

-- ARGV: the tag of a loan, and for how long the process has the task to close it.
function calls.close()
  local tag = ARGV[3]
  local id = redis_call('HGET', account, 'id:' .. tag)
  if not id then
    local charged = redis_call('HGET', record, 'charged')
    if not charged then return { 'unknown' } end
    local reply = { 'closed' }
    for word in charged:gmatch('%S+') do reply[#reply + 1] = word end
    return reply
  end
  if is_open(tag) or now < get('closing:' .. tag) then return { 'open' } end
  set('closing:' .. tag, now + tonumber(ARGV[4]))
  if redis_call('HGET', account, 'loan') == tag then redis_call('HDEL', account, 'loan') end
  local _, charged = loans()
  return { 'closing', id, unpack(charged[tag] or {}) }
end

-- ARGV: the tag of a loan that the ledger has settled, how long its record is kept, and what the ledger has charged for each process.
function calls.closed()
  local tag = ARGV[3]
  if redis_call('HEXISTS', account, 'id:' .. tag) == 0 then return { 'closed' } end
  local tags, charged = loans()
  charged = charged[tag] or {}
  for at = 1, #charged, 2 do redis_call('HDEL', account, 'charged:' .. tag .. ':' .. charged[at]) end
  for _, kind in ipairs({ 'id', 'left', 'back', 'open', 'until', 'closing' }) do redis_call('HDEL', account, kind .. ':' .. tag) end
  if #tags == 1 and tags[1] == tag then redis_call('DEL', account) end
  redis_call('HSET', record, 'charged', ARGV[5])
  redis_call('PEXPIRE', record, ARGV[4])
  return { 'closed' }
end

-- What the loans of the account can lend, what was charged on them, how many are being closed, which are left out of both sums, and for each loan
-- its tag and 1 if it can be closed.
function calls.look()
  local left, sum, closing, reply = 0, 0, 0, {}
  local tags, charged = loans()
  for _, tag in ipairs(tags) do
    if get('closing:' .. tag) > 0 then
      closing = closing + 1
    else
      left = left + get('left:' .. tag)
      sum = sum + (charged[tag] and charged[tag].sum or 0)
    end
    reply[#reply + 1] = tag
    reply[#reply + 1] = is_open(tag) and 0 or 1
  end
  return { 'sums', left, sum, closing, unpack(reply) }
end

-- All loans of the account stop to lend, if together they have at least ARGV[3] left, or if ARGV[4] is 1. The reply: what they had, and for each
-- one its identifier, what it still has to hold, and what returns to the ledger. What has not returned yet counts as left: a caller may have failed.
-- So does what is left of a loan that is being closed: the process that closes it may have ended.
function calls.recall()
  local sum = 0
  local tags, charged = loans()
  for _, tag in ipairs(tags) do
    sum = sum + get('left:' .. tag) + get('back:' .. tag)
  end
  local reply = { 'recalled', sum }
  if sum < tonumber(ARGV[3]) and ARGV[4] ~= '1' then return reply end
  redis_call('HDEL', account, 'loan')
  for _, tag in ipairs(tags) do
    local back = get('left:' .. tag) + get('back:' .. tag)
    if back > 0 then
      set('left:' .. tag, 0)
      set('back:' .. tag, back)
      reply[#reply + 1] = redis_call('HGET', account, 'id:' .. tag)
      reply[#reply + 1] = text(get('open:' .. tag) + (charged[tag] and charged[tag].sum or 0))
      reply[#reply + 1] = text(back)
    end
  end
  return reply
end

-- ARGV: the tag of a loan, and what the ledger has taken back of it.
function calls.returned()
  local field = 'back:' .. ARGV[3]
  local back = get(field)
  if back > 0 then set(field, math.max(back - tonumber(ARGV[4]), 0)) end
  return { 'returned' }
end

return calls[name]()
